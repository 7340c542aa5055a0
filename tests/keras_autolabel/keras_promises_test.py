"""What Keras promises around a training step holds: held against Keras itself, or by hand."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import (
    PGD,
    AugmentedBatch,
    AugMix,
    AutoLabel,
    AutoLabelModel,
    LabelTable,
    Mixup,
    SoftTargetLoss,
)
from tests.conftest import Dimming, linear_network, numpy_softmax

KERAS_3 = hasattr(keras, "ops")
SHAPE = (4, 4, 1)
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=[48, *SHAPE]).astype(np.float32)
LABELS = RNG.integers(3, size=48)


def _network(regularizer=None):
    network = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(8, use_bias=False, kernel_regularizer=regularizer),
            # It tells training from inference.
            keras.layers.BatchNormalization(momentum=0.8),
            keras.layers.Activation("tanh"),
            keras.layers.Dense(3),
        ]
    )
    rng = np.random.default_rng(1)
    network.set_weights([0.5 * rng.uniform(0.5, 1.5, w.shape) for w in network.get_weights()])
    return network


def _sgd():
    return keras.optimizers.SGD(0.1, momentum=0.9)


def _adam(**options):
    # Not the sign alone: that of a tiny gradient is all rounding.
    return keras.optimizers.Adam(0.01, epsilon=1e-3, **options)


# Each: the optimizer, the arguments of compile, those of fit. Keras 2 has neither of the two.
SCALED = {"loss_scale_factor": 64.0} if KERAS_3 else {}
ACCUMULATED = {"gradient_accumulation_steps": 3} if KERAS_3 else {}
PROMISES = {
    "regularisation, validation_split, sample_weight, weighted_metrics": (
        _sgd,
        {"weighted_metrics": ["accuracy"]},
        {
            "regularizer": keras.regularizers.L2(0.1),
            "validation_split": 0.25,
            "sample_weight": np.linspace(0.0, 2.0, 48),
        },
    ),
    "steps_per_execution, an uneven last batch, gradient_accumulation_steps": (
        lambda: _adam(**ACCUMULATED),
        {"steps_per_execution": 3},
        {"batch_size": 13},
    ),
    "run_eagerly, class_weight, use_ema, clipnorm, loss_scale_factor": (
        lambda: _adam(use_ema=True, ema_momentum=0.7, clipnorm=0.01, **SCALED),
        {"run_eagerly": True},
        {"class_weight": {0: 0.3, 1: 2.0, 2: 1.0}},
    ),
}


@pytest.mark.parametrize("promise", PROMISES)
def test_training_without_augmentation_is_that_of_keras(promise):
    optimizer, compiled, fitted = PROMISES[promise]
    fitted = {"batch_size": 16, "epochs": 2, "shuffle": False, "verbose": 0, **fitted}
    regularizer = fitted.pop("regularizer", None)
    plain, network = _network(regularizer), _network(regularizer)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    plain.compile(optimizer(), loss, metrics=["accuracy"], **compiled)
    expected = plain.fit(IMAGES, LABELS, **fitted).history
    model = AutoLabelModel(network, num_classes=3)
    model.compile(optimizer(), metrics=["accuracy"], **compiled)
    actual = model.fit(IMAGES, LABELS, **fitted).history
    assert actual.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
    for one, other in zip(network.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    options = {"sample_weight": fitted.get("sample_weight"), "verbose": 0, "return_dict": True}
    logs = model.evaluate(IMAGES, LABELS, **options)
    assert logs == pytest.approx(plain.evaluate(IMAGES, LABELS, **options), rel=1e-5)


# --- loss scaling ---------------------------------------------------------------------------------


@pytest.fixture
def mixed_float16():
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_float16")
    yield
    keras.mixed_precision.set_global_policy(before)


def _scale(optimizer) -> float:
    return float(optimizer.dynamic_scale if KERAS_3 else optimizer.loss_scale)


def test_float16_scales_the_loss_and_skips_what_overflows(mixed_float16):
    network = linear_network(SHAPE, 3)
    model = AutoLabelModel(network, num_classes=3)
    model.compile(keras.optimizers.SGD(0.1))
    options = {"batch_size": 48, "verbose": 0}
    start = network.get_weights()
    model.fit(IMAGES, LABELS, **options)
    optimizer = model.optimizer
    assert isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer)
    # A scale of 2^15 lets through the gradient of the mean loss, p - 1 over 48 examples.
    scale = _scale(optimizer)
    assert scale == 2.0**15
    inputs = IMAGES.reshape(48, -1).astype(np.float64)
    slope = (numpy_softmax(inputs @ start[0] + start[1]) - np.eye(3)[LABELS]) / 48
    np.testing.assert_allclose(network.get_weights()[1], start[1] - 0.1 * slope.sum(0), atol=2e-4)
    # Weights this large give a gradient that float16 cannot hold: no update, half the scale.
    weight = np.full(48, 1e5, np.float32)
    before = network.get_weights()
    model.fit(IMAGES, LABELS, sample_weight=weight, **options)
    for one, other in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert _scale(optimizer) == scale / 2


def test_a_loss_of_keras_is_computed_in_float32(mixed_float16):
    network = linear_network(SHAPE, 3)
    # Logits that float16 holds exactly, and a loss that it does not.
    network.set_weights([np.zeros([16, 3]), np.array([1.0, 0.5, -2.25])])
    model = AutoLabelModel(network, num_classes=3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss)
    logs = model.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
    log_p = np.log(numpy_softmax(np.array([[1.0, 0.5, -2.25]])))[0]
    np.testing.assert_allclose(logs["loss"], -log_p[LABELS].mean(), rtol=1e-6)


def test_the_sum_of_a_loss_of_keras_is_the_sum():
    network = linear_network(SHAPE, 3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    model = AutoLabelModel(network, num_classes=3)
    model.compile(keras.optimizers.SGD(0.01), loss)
    start = network.get_weights()
    model.fit(IMAGES, LABELS, batch_size=48, verbose=0)
    inputs = IMAGES.reshape(48, -1).astype(np.float64)
    slope = numpy_softmax(inputs @ start[0] + start[1]) - np.eye(3)[LABELS]
    np.testing.assert_allclose(network.get_weights()[1], start[1] - 0.01 * slope.sum(0), atol=1e-5)


# --- micro-batches, averages ----------------------------------------------------------------------


class Recording(AutoLabelModel):
    """Keeps the batches that it trains on, out of graphs too."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.keep = [].append

    def augment(self, images, labels):
        batch = super().augment(images, labels)
        tf.py_function(lambda *fields: self.keep([x.numpy() for x in fields]), list(batch), [])
        return batch

    def seen(self) -> AugmentedBatch:
        """All batches so far, one behind the other."""
        return AugmentedBatch(*map(np.concatenate, zip(*self.keep.__self__, strict=True)))


ATTACK = PGD(epsilon=0.2, num_buckets=2, num_steps=1)
# One operation: a graph of all takes most of the time of these tests.
AUGMIX = AugMix(num_buckets=2, max_depth=2, operations=("solarize",))


@pytest.mark.skipif(not KERAS_3, reason="Keras 2 accumulates no gradients")
@pytest.mark.parametrize("augmentation", [AUGMIX, ATTACK], ids=["AugMix", "PGD"])
def test_an_update_is_the_mean_of_micro_batches_that_are_drawn_apart(augmentation):
    network = linear_network(SHAPE, 3)
    model = Recording(network, augmentation, num_classes=3)
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=4))
    model.label_policy.confidence.assign(np.full(augmentation.bucket_shape, 0.9))
    kernel, bias = network.get_weights()
    model.fit(IMAGES, LABELS, batch_size=12, verbose=0)
    batch = model.seen()
    assert len(np.unique(batch.distance)) == 48
    inputs = batch.images.reshape(48, -1).astype(np.float64)
    targets = np.where(np.eye(3)[batch.labels] == 1.0, 0.9, 0.05)
    # The mean of the four means of twelve, all at the weights before.
    slope = (numpy_softmax(inputs @ kernel + bias) - targets) / 48
    expected = kernel - 0.1 * inputs.T @ slope, bias - 0.1 * slope.sum(axis=0)
    for actual, weight in zip(network.get_weights(), expected, strict=True):
        np.testing.assert_allclose(actual, weight, atol=1e-6)


def test_every_step_draws_anew_however_it_is_executed():
    runs = []
    for options in ({"steps_per_execution": 4}, {"run_eagerly": True}):
        model = Recording(_network(), AUGMIX, num_classes=3, seed=3)
        model.label_policy.confidence.assign(np.full([2, 2], 0.9))
        model.compile(_sgd(), **options)
        model.fit(IMAGES, LABELS, batch_size=12, epochs=2, shuffle=False, verbose=0)
        runs.append((model.seen().distance, *model.get_weights()))
    assert len(np.unique(runs[0][0])) == 96
    for one, other in zip(*runs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


class Watching(AutoLabel):
    """Keeps the weights that the hold-out was measured with, and those of training."""

    def measure(self, epoch):
        self.measured = self.model.network.get_weights()
        return super().measure(epoch)

    def on_epoch_end(self, epoch, logs=None):
        self.before = self.model.network.get_weights()
        super().on_epoch_end(epoch, logs)
        self.after = self.model.network.get_weights()


def test_labels_are_calibrated_on_the_averaged_weights_that_training_leaves():
    holdout = IMAGES[:30], LABELS[:30]
    network = linear_network(SHAPE, 3)
    model = AutoLabelModel(network, Dimming(), num_classes=3)
    model.compile(keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.75))
    watching = Watching(holdout)
    model.fit(IMAGES, LABELS, batch_size=24, verbose=0, shuffle=False, callbacks=[watching])
    # Two updates, whose average begins at the first weights that Keras sees: of Keras 3 those after
    # the first update, of Keras 2 those before it.
    for one, other in zip(watching.before, watching.after, strict=True):
        np.testing.assert_array_equal(one, other)
    again = AutoLabelModel(linear_network(SHAPE, 3), Dimming(), num_classes=3)
    again.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    path = [again.network.get_weights()]
    for rows in (slice(0, 24), slice(24, 48)):
        again.train_on_batch(IMAGES[rows], LABELS[rows])
        path.append(again.network.get_weights())
    for measured, left, start, first, second in zip(
        watching.measured, network.get_weights(), *path, strict=True
    ):
        begun = first if KERAS_3 else 0.75 * start + 0.25 * first
        np.testing.assert_allclose(measured, 0.75 * begun + 0.25 * second, atol=1e-6)
        np.testing.assert_array_equal(left, measured)
    np.testing.assert_allclose(watching.after[0], path[2][0], atol=1e-6)


# --- parts that do not train, losses of one's own, masks ------------------------------------------


def test_what_is_frozen_stays():
    network = _network()
    network.layers[1].trainable = False
    start = network.get_weights()
    model = AutoLabelModel(network, Dimming(), num_classes=3)
    model.compile(_sgd(), run_eagerly=True)
    model.fit(IMAGES, LABELS, batch_size=16, verbose=0)
    for index, (one, other) in enumerate(zip(network.get_weights(), start, strict=True)):
        assert np.array_equal(one, other) == (index < 1)
    model.trainable = False
    start = network.get_weights()
    model.compile(_sgd(), run_eagerly=True)
    model.fit(IMAGES, LABELS, batch_size=16, verbose=0)
    for one, other in zip(network.get_weights(), start, strict=True):
        np.testing.assert_array_equal(one, other)
    # Neither the table nor the counter of draws is thawed.
    model.trainable = True
    assert len(model.trainable_weights) == len(network.trainable_weights) == 5


class OwnLoss(AutoLabelModel):
    """A subclass whose loss is the model's, and the mean of the logits of the true class."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        own = super().compute_loss(x, y, y_pred, sample_weight, training)
        moved = isinstance(x, AugmentedBatch)
        weighed = sample_weight is not None
        CALLS.append((bool(training), moved, weighed, y.dtype, y_pred.dtype))
        return own + tf.reduce_mean(tf.gather(y_pred, y, batch_dims=1))


CALLS: list[tuple] = []


def test_a_subclass_may_have_a_loss_of_its_own():
    CALLS.clear()
    network = linear_network(SHAPE, 3)
    model = OwnLoss(network, num_classes=3)
    model.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    start, weight = network.get_weights(), np.linspace(0.0, 2.0, 48)
    model.fit(IMAGES, LABELS, sample_weight=weight, batch_size=48, shuffle=False, verbose=0)
    inputs = IMAGES.reshape(48, -1).astype(np.float64)
    slope = numpy_softmax(inputs @ start[0] + start[1]) - np.eye(3)[LABELS]
    slope = (slope * weight[:, np.newaxis] + np.eye(3)[LABELS]) / 48
    np.testing.assert_allclose(network.get_weights()[1], start[1] - 0.5 * slope.sum(0), atol=1e-6)
    assert CALLS == [(True, True, True, tf.int32, tf.float32)]
    model.evaluate(IMAGES, LABELS, batch_size=48, verbose=0)
    # Keras 2 does not say which step it is.
    assert CALLS[1:] == [(not KERAS_3, False, False, tf.int32, tf.float32)]


def test_one_batch_at_a_time_is_fit():
    mixup = Mixup(num_buckets=2)
    whole, single = (AutoLabelModel(_network(), mixup, num_classes=3) for _ in range(2))
    whole.compile(_sgd(), run_eagerly=True)
    single.compile(_sgd())
    whole.fit(IMAGES, LABELS, batch_size=24, shuffle=False, verbose=0)
    for rows in (slice(0, 24), slice(24, 48)):
        single.train_on_batch(IMAGES[rows], LABELS[rows])
    for one, other in zip(whole.get_weights(), single.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    expected = single.evaluate(IMAGES, LABELS, verbose=0)
    np.testing.assert_allclose(single.test_on_batch(IMAGES, LABELS), expected, rtol=1e-5)


def test_masked_classes_leave_the_loss_finite():
    # The third class is masked out; nothing may be spent on it, nor is there a gradient.
    inputs = keras.Input(SHAPE)
    logits = keras.layers.Dense(3)(keras.layers.Flatten()(inputs))
    masked = keras.layers.Lambda(lambda z: z + tf.constant([0.0, 0.0, -np.inf]))(logits)
    network = keras.Model(inputs, masked)
    network.set_weights(linear_network(SHAPE, 3).get_weights())
    model = AutoLabelModel(network, num_classes=3, label_policy=LabelTable((1,), initial=0.8))
    model.compile(keras.optimizers.SGD(0.5))
    kernel, bias = network.get_weights()
    labels = LABELS % 2
    history = model.fit(IMAGES, labels, batch_size=48, verbose=0).history
    inputs = IMAGES.reshape(48, -1).astype(np.float64)
    p = numpy_softmax(inputs @ kernel[:, :2] + bias[:2])
    targets = np.where(np.eye(2)[labels] == 1.0, 0.8, 0.2)
    np.testing.assert_allclose(history["loss"], [-(targets * np.log(p)).sum(1).mean()], rtol=1e-5)
    slope = np.pad((p - targets) / 48, [(0, 0), (0, 1)])
    np.testing.assert_allclose(network.get_weights()[1], bias - 0.5 * slope.sum(0), atol=1e-6)


def test_the_own_loss_survives_a_config():
    loss = SoftTargetLoss(LabelTable((2,), initial=0.6), reduction="sum")
    copy = SoftTargetLoss.from_config(loss.get_config())
    assert copy.reduction == "sum"
    np.testing.assert_allclose(copy.policy.confidence, [0.6, 0.6], rtol=1e-6)


def _counted(base: type) -> type:
    """The class of models, which count how often Keras traces their step."""

    class Counted(base):
        traces = 0

        def train_step(self, data):
            self.traces += 1
            return super().train_step(data)

    return Counted


@pytest.mark.parametrize("given", ["arrays", "an augmented dataset"])
def test_a_fit_is_traced_as_often_as_that_of_keras_an_odd_last_batch_included(given):
    network = _network()
    plain = _counted(keras.Model)(network.inputs, network.outputs)
    plain.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model = _counted(AutoLabelModel)(_network(), AUGMIX, num_classes=3)
    model.compile("sgd")
    # 48 images: the fifth batch has 8.
    batches = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(10)
    data = (IMAGES, LABELS, 10) if given == "arrays" else (batches,)
    plain.fit(*data, verbose=0)
    if given == "an augmented dataset":
        data = (batches.apply(model.augmentation.dataset_transform(seed=1)),)
    for _ in range(2):
        model.fit(*data, epochs=2, verbose=0, callbacks=[AutoLabel((IMAGES, LABELS))])
        # TensorFlow runs the step twice for the first graph, which might make variables.
        assert model.traces == plain.traces <= 2
