import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import (
    AugMix,
    AutoLabelModel,
    LabelSmoothing,
    LabelTable,
    Mixup,
    OneHot,
    SoftTargetLoss,
)
from keras_autolabel.checks import names_of_non_finite
from tests.conftest import Dimming, linear_network, numpy_softmax

RATE = 0.5
SHAPE = (2, 2, 1)
IMAGES = np.random.default_rng(5).integers(256, size=[6, *SHAPE]).astype(np.uint8)
LABELS = np.array([0, 1, 2, 2, 1, 0])


def _model(augmentation=None, *, network=None, optimizer=None, **arguments) -> AutoLabelModel:
    network = network or linear_network(SHAPE, 3)
    model = AutoLabelModel(network, augmentation, num_classes=3, **arguments)
    model.compile(optimizer or keras.optimizers.SGD(RATE), metrics=["accuracy"])
    return model


def _logits(parameters, images) -> np.ndarray:
    weights, bias = parameters
    return np.reshape(images, [len(images), -1]).astype(np.float64) @ weights + bias


def _losses(parameters, images, targets) -> np.ndarray:
    return -(targets * np.log(numpy_softmax(_logits(parameters, images)))).sum(axis=-1)


def _step(parameters, images, targets, sample_weight=1.0) -> list[np.ndarray]:
    """One step of SGD on a linear network.

    z = xW + b, loss = mean_i w_i·CE(target_i, softmax(z_i)), so that
    dloss/dz_i = w_i (softmax(z_i) - target_i)/B, dloss/dW = Σ x_i^T dz_i and dloss/db = Σ dz_i.
    """
    weights, bias = parameters
    inputs = np.reshape(images, [len(images), -1]).astype(np.float64)
    gradient = (numpy_softmax(_logits(parameters, images)) - targets) / len(images)
    gradient *= np.broadcast_to(sample_weight, len(images))[:, np.newaxis]
    return [weights - RATE * inputs.T @ gradient, bias - RATE * gradient.sum(axis=0)]


def _targets(labels, confidence) -> np.ndarray:
    """Eq. (2) with three classes."""
    confidence = np.broadcast_to(confidence, len(labels))[:, np.newaxis]
    one_hot = np.eye(3)[labels]
    return one_hot * confidence + (1 - one_hot) * (1 - confidence) / 2


def _assert_weights(model, expected, atol=1e-6) -> None:
    for actual, weights in zip(model.network.get_weights(), expected, strict=True):
        np.testing.assert_allclose(actual, weights, atol=atol)


# --- fit, by hand ---------------------------------------------------------------------------------


def test_one_step_with_a_table_at_0_7():
    model = _model(label_policy=LabelTable((1,), initial=0.7))
    start, targets = model.network.get_weights(), _targets(LABELS, 0.7)
    history = model.fit(IMAGES, LABELS, batch_size=6, verbose=0).history
    _assert_weights(model, _step(start, IMAGES / 255, targets))
    np.testing.assert_allclose(
        history["loss"], [_losses(start, IMAGES / 255, targets).mean()], atol=1e-6
    )
    hits = _logits(start, IMAGES / 255).argmax(axis=-1) == LABELS
    np.testing.assert_allclose(history["accuracy"], [hits.mean()])


def test_two_steps_and_a_last_batch_of_another_size():
    model = _model(label_policy=LabelTable((1,), initial=0.7))
    parameters, losses = model.network.get_weights(), []
    for rows in (slice(0, 4), slice(4, 6)):
        targets = _targets(LABELS[rows], 0.7)
        losses.extend(_losses(parameters, IMAGES[rows] / 255, targets))
        parameters = _step(parameters, IMAGES[rows] / 255, targets)
    history = model.fit(IMAGES, LABELS, batch_size=4, shuffle=False, verbose=0).history
    _assert_weights(model, parameters)
    # The mean over images, not over batches.
    np.testing.assert_allclose(history["loss"], [np.mean(losses)], atol=1e-6)


@pytest.mark.parametrize("policy", [None, OneHot(), LabelSmoothing(0.3, num_classes=3)])
def test_fixed_policies(policy):
    model = _model(label_policy=policy)
    start = model.network.get_weights()
    confidence = 1 - 0.3 * 2 / 3 if isinstance(policy, LabelSmoothing) else 1.0
    model.fit(IMAGES, LABELS, batch_size=6, verbose=0)
    _assert_weights(model, _step(start, IMAGES / 255, _targets(LABELS, confidence)))


def _dimmed(labels) -> np.ndarray:
    """What ``Dimming`` makes of the images: label k is in bucket k, dimmed to 1 - k/3."""
    return IMAGES / 255 * (1 - labels / 3).reshape(-1, 1, 1, 1)


def test_labels_are_gathered_by_bucket_and_again_after_an_update():
    model = _model(Dimming())
    np.testing.assert_array_equal(model.label_policy.confidence, np.float32([0.7] * 3))
    parameters = model.network.get_weights()
    for table in ([0.9, 0.6, 0.4], [0.5, 1.0, 0.8]):
        model.label_policy.confidence.assign(table)
        model.fit(IMAGES, LABELS, batch_size=6, verbose=0)
        targets = _targets(LABELS, np.array(table)[LABELS])
        parameters = _step(parameters, _dimmed(LABELS), targets)
        _assert_weights(model, parameters)


def test_a_dataset_that_is_already_augmented_trains_the_same():
    inside, ahead = _model(Dimming()), _model(Dimming())
    for model in (inside, ahead):
        model.label_policy.confidence.assign([0.9, 0.6, 0.4])
    data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS, np.arange(6.0))).batch(2)
    first = inside.fit(data, epochs=2, verbose=0).history
    # cache: the labels must come from the table, not from the dataset.
    data = data.apply(Dimming().dataset_transform(seed=1)).cache()
    second = ahead.fit(data, epochs=2, verbose=0).history
    _assert_weights(ahead, inside.network.get_weights())
    np.testing.assert_allclose(first["loss"], second["loss"], atol=1e-6)
    np.testing.assert_allclose(first["accuracy"], second["accuracy"])


@pytest.mark.parametrize("kind", ["array", "dataset", "class_weight"])
def test_sample_weight_and_class_weight(kind):
    model = _model(label_policy=LabelTable((1,), initial=0.7))
    start, targets = model.network.get_weights(), _targets(LABELS, 0.7)
    weight = np.array([0.5, 2.0, 0.0])[LABELS]
    if kind == "array":
        history = model.fit(IMAGES, LABELS, sample_weight=weight, batch_size=6, verbose=0)
    elif kind == "dataset":
        data = tf.data.Dataset.from_tensors((IMAGES, LABELS, weight))
        history = model.fit(data, verbose=0)
    else:
        class_weight = {0: 0.5, 1: 2.0, 2: 0.0}
        history = model.fit(IMAGES, LABELS, class_weight=class_weight, batch_size=6, verbose=0)
    _assert_weights(model, _step(start, IMAGES / 255, targets, weight))
    expected = (weight * _losses(start, IMAGES / 255, targets)).mean()
    np.testing.assert_allclose(history.history["loss"], [expected], atol=1e-6)


def test_regularisation_is_added_once():
    layer = keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.1))
    network = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), layer])
    model = _model(network=network)
    start, targets = network.get_weights(), _targets(LABELS, 1.0)
    history = model.fit(IMAGES, LABELS, batch_size=6, verbose=0).history
    weights, bias = _step(start, IMAGES / 255, targets)
    # d(0.1·Σ W²)/dW = 0.2·W.
    _assert_weights(model, [weights - RATE * 0.2 * start[0], bias])
    expected = _losses(start, IMAGES / 255, targets).mean() + 0.1 * np.sum(start[0] ** 2)
    np.testing.assert_allclose(history["loss"], [expected], rtol=1e-5)


def test_a_loss_of_keras_is_given_class_numbers_and_logits():
    model = _model(label_policy=LabelTable((1,), initial=0.7))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(RATE), loss)
    start = model.network.get_weights()
    model.fit(IMAGES, LABELS, batch_size=6, verbose=0)
    _assert_weights(model, _step(start, IMAGES / 255, _targets(LABELS, 1.0)))


def test_the_own_loss_may_be_given():
    policy = LabelTable((1,), initial=0.7)
    model = _model(label_policy=policy)
    model.compile(keras.optimizers.SGD(RATE), SoftTargetLoss(policy))
    start = model.network.get_weights()
    model.fit(IMAGES, LABELS, batch_size=6, verbose=0)
    _assert_weights(model, _step(start, IMAGES / 255, _targets(LABELS, 0.7)))


def _half_network():
    """A layer in single precision inside a model of mixed precision."""
    layer = keras.layers.Dense(3, dtype="float32")
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(dtype="float32"), layer])


def test_mixed_precision_does_not_round_images(mixed_precision):
    model = _model(network=_half_network())
    assert model.compute_dtype == mixed_precision.removeprefix("mixed_")
    expected = _logits(model.network.get_weights(), IMAGES / 255)
    for images in (IMAGES, FLOATS):
        np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-6)


def test_a_network_in_double_precision():
    layers = [keras.layers.Flatten(dtype="float64"), keras.layers.Dense(3, dtype="float64")]
    model = _model(network=keras.Sequential([keras.Input(SHAPE, dtype="float64"), *layers]))
    start = model.network.get_weights()
    model.fit(IMAGES, LABELS, batch_size=6, verbose=0)
    assert model.network.get_weights()[0].dtype == np.float64
    _assert_weights(model, _step(start, IMAGES / 255, _targets(LABELS, 1.0)))


def test_mixed_precision_keeps_label_and_loss_in_float32(mixed_precision):
    network = linear_network(SHAPE, 3)
    # Logits that half precision holds exactly, so that the label and the loss alone can round.
    network.set_weights([np.zeros([4, 3]), np.array([1.0, 0.5, -2.25])])
    assert network(IMAGES / np.float32(255)).dtype == mixed_precision.removeprefix("mixed_")
    expected = _losses(network.get_weights(), IMAGES / 255, _targets(LABELS, 0.9)).mean()
    model = _model(network=network, label_policy=LabelTable((1,), initial=0.9))
    history = model.fit(IMAGES, LABELS, batch_size=6, verbose=0).history
    np.testing.assert_allclose(history["loss"], [expected], rtol=1e-6)


def test_float16_scales_the_loss(mixed_precision):
    optimizer = keras.optimizers.SGD(RATE)
    if mixed_precision == "mixed_float16":
        optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
    model = _model(optimizer=optimizer)
    start = model.network.get_weights()
    model.fit(IMAGES, LABELS, batch_size=6, verbose=0)
    expected = _step(start, IMAGES / 255, _targets(LABELS, 1.0))
    _assert_weights(model, expected, atol=0.01)
    assert np.abs(start[0] - expected[0]).max() > 0.03


# --- evaluate and predict -------------------------------------------------------------------------


def test_evaluate_and_predict_take_plain_images():
    model = _model(Dimming())
    model.label_policy.confidence.assign([0.5, 0.5, 0.5])
    parameters = model.network.get_weights()
    logits = _logits(parameters, IMAGES / 255)
    # Clean images and one-hot labels, whatever the table says.
    loss = _losses(parameters, IMAGES / 255, np.eye(3)[LABELS]).mean()
    accuracy = (logits.argmax(axis=-1) == LABELS).mean()
    for images in (IMAGES, IMAGES / np.float32(255), IMAGES / 255):
        logs = model.evaluate(images, LABELS, batch_size=4, verbose=0, return_dict=True)
        np.testing.assert_allclose([logs["loss"], logs["accuracy"]], [loss, accuracy], rtol=1e-5)
        data = tf.data.Dataset.from_tensor_slices((images, LABELS)).batch(4)
        assert model.evaluate(data, verbose=0, return_dict=True) == logs
        np.testing.assert_allclose(model.predict(images, verbose=0), logits, atol=1e-5)


def test_validation_data_of_fit_is_what_evaluate_sees():
    model = _model(Dimming())
    history = model.fit(IMAGES, LABELS, validation_data=(IMAGES, LABELS), verbose=0).history
    logs = model.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(history[f"val_{name}"], [logs[name]], rtol=1e-6)


def test_evaluate_takes_a_column_of_labels_after_a_row():
    # Keras then traces for labels of any rank.
    model = _model()
    logs = [model.evaluate(IMAGES, labels, verbose=0) for labels in (LABELS, LABELS[:, np.newaxis])]
    assert logs[0] == logs[1]
    assert _model().evaluate(IMAGES, np.eye(3, dtype=int)[LABELS], verbose=0) == logs[0]


def test_weights_of_evaluate():
    model, weight = _model(), np.arange(6.0)
    losses = _losses(model.network.get_weights(), IMAGES / 255, np.eye(3)[LABELS])
    logs = model.evaluate(IMAGES, LABELS, sample_weight=weight, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["loss"], (weight * losses).mean(), rtol=1e-5)


# --- seeds ----------------------------------------------------------------------------------------


def test_every_step_draws_anew_and_the_seed_repeats_it():
    def distances(seed):
        model = _model(AugMix(num_buckets=5), seed=seed)
        augment = tf.function(model.augment)
        drawn = []
        for step in range(3):
            model.draws.assign(step)
            drawn.append(augment(IMAGES, LABELS).distance.numpy())
        return np.array(drawn)

    first = distances(1)
    assert len(np.unique(first)) == first.size
    np.testing.assert_array_equal(distances(1), first)
    assert not np.any(np.isin(distances(2), first))


# --- configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation", [None, Dimming(), AugMix(num_buckets=4, max_depth=2)])
def test_config_round_trip(augmentation):
    model = _model(augmentation, seed=9)
    copy = keras.utils.deserialize_keras_object(keras.utils.serialize_keras_object(model))
    assert copy.get_config() == model.get_config()
    assert type(copy.augmentation) is type(augmentation)
    assert (copy.seed, copy.num_classes) == (9, 3)


def test_saved_models_carry_weights_table_and_optimizer(tmp_path):
    model = _model(Dimming(), optimizer=keras.optimizers.SGD(RATE, momentum=0.9))
    model.label_policy.confidence.assign([0.9, 0.6, 0.4])
    model.fit(IMAGES, LABELS, epochs=2, verbose=0)
    path = tmp_path / "model.keras"
    model.save(path)
    copy = keras.models.load_model(path)
    _assert_weights(copy, model.network.get_weights(), atol=0)
    np.testing.assert_array_equal(copy.label_policy.confidence, np.float32([0.9, 0.6, 0.4]))
    np.testing.assert_array_equal(copy.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0))
    # The momentum and the step counter came too: both go on in the same way.
    histories = [m.fit(IMAGES, LABELS, epochs=2, verbose=0).history for m in (model, copy)]
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], atol=1e-6)
    assert histories[0].keys() == histories[1].keys() == {"loss", "accuracy"}
    _assert_weights(copy, model.network.get_weights())
    assert int(copy.optimizer.iterations) == int(model.optimizer.iterations) == 4


def test_saved_models_carry_a_loss_of_keras(tmp_path):
    model = _model(label_policy=LabelTable((1,), initial=0.5))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(IMAGES, LABELS, verbose=0)
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(copy.given_loss, keras.losses.SparseCategoricalCrossentropy)
    histories = [m.fit(IMAGES, LABELS, epochs=2, verbose=0).history for m in (model, copy)]
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], atol=1e-6)


def test_weights_files_carry_the_table(tmp_path):
    model, copy = _model(Dimming()), _model(Dimming(), network=linear_network(SHAPE, 3, seed=1))
    model.label_policy.confidence.assign([0.9, 0.6, 0.4])
    model.fit(IMAGES, LABELS, verbose=0)
    model.save_weights(tmp_path / "model.weights.h5")
    copy.fit(IMAGES, LABELS, verbose=0)
    copy.load_weights(tmp_path / "model.weights.h5")
    _assert_weights(copy, model.network.get_weights(), atol=0)
    np.testing.assert_array_equal(copy.label_policy.confidence, np.float32([0.9, 0.6, 0.4]))


# --- what is refused ------------------------------------------------------------------------------


def _network(*layers):
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), *layers])


class LateNetwork(keras.Model):
    """A subclassed network: its input is unknown until images come."""

    def __init__(self, activation=None):
        super().__init__()
        self.flatten = keras.layers.Flatten()
        self.dense = keras.layers.Dense(3, activation=activation)

    def call(self, images, training=False):
        return self.dense(self.flatten(images))


@pytest.mark.parametrize(
    ("network", "arguments", "message"),
    [
        (linear_network(SHAPE, 3), {"num_classes": 1}, "at least 2.*num_classes=1"),
        (linear_network(SHAPE, 3), {"num_classes": 4}, r"num_classes=4\].*shape \[B, 3\]"),
        (
            _network(keras.layers.Dense(3, activation="softmax")),
            {"num_classes": 3},
            "'dense.*softmax",
        ),
        (
            keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(3, 1)]),
            {"num_classes": 3},
            r"Received: outputs of shape \[B, 2, 2, 3\]",
        ),
        (
            linear_network(SHAPE, 3),
            {"num_classes": 3, "label_policy": LabelTable((4,)), "augmentation": Dimming()},
            r"table \(4,\), augmentation \(3,\)",
        ),
        (
            linear_network(SHAPE, 3),
            {"num_classes": 3, "label_policy": LabelTable((2,))},
            r"table \(2,\), augmentation \(1,\)",
        ),
        (linear_network(SHAPE, 3), {"num_classes": 3, "seed": -1}, "Received: seed=-1"),
        (linear_network(SHAPE, 3), {"num_classes": 3, "seed": 2**31}, "Received: seed=2147483648"),
        (linear_network(SHAPE, 3), {"num_classes": 3, "seed": 0.5}, "Received: seed=0.5"),
    ],
)
def test_construction_is_checked(network, arguments, message):
    with pytest.raises(ValueError, match=message):
        AutoLabelModel(network, **arguments)


def test_a_network_that_is_built_late_is_checked_by_fit():
    model = AutoLabelModel(LateNetwork("softmax"), num_classes=3)
    model.compile("sgd")
    with pytest.raises(ValueError, match="leave out the softmax"):
        model.fit(IMAGES, LABELS, verbose=0)


def test_probabilities_in_bfloat16_are_found():
    # A third is 0.333984375 in bfloat16, whichever layer it comes out of.
    third = keras.layers.Lambda(lambda x: tf.cast(0.0 * x + 0.333984375, tf.bfloat16))
    network = _network(keras.layers.Dense(3), third)
    sums = tf.reduce_sum(tf.cast(network(FLOATS), tf.float32), axis=-1)
    np.testing.assert_array_equal(sums, np.full(6, 3 * 0.333984375, np.float32))
    with pytest.raises(ValueError, match="leave out the softmax"):
        AutoLabelModel(network, num_classes=3)


def test_a_network_that_is_built_late_is_checked_by_a_dataset_that_is_augmented():
    model = AutoLabelModel(LateNetwork("softmax"), Dimming(), num_classes=3)
    model.compile("sgd")
    data = tf.data.Dataset.from_tensors((IMAGES, LABELS))
    with pytest.raises(ValueError, match="leave out the softmax"):
        model.fit(data.apply(Dimming().dataset_transform(seed=1)), verbose=0)


OPEN_SIZES = [[None] * 4, [None, None, None, 1], [None, 2, 2, None]]


@pytest.mark.parametrize("network", [linear_network(SHAPE, 3), LateNetwork()])
@pytest.mark.parametrize("shape", OPEN_SIZES)
def test_datasets_may_leave_sizes_open(network, shape):
    network(FLOATS)
    start = network.get_weights()
    model = _model(network=network)
    specs = tf.TensorSpec(shape, tf.uint8), tf.TensorSpec([None], tf.int64)
    data = tf.data.Dataset.from_generator(lambda: [(IMAGES, LABELS)], output_signature=specs)
    model.fit(data, validation_data=data, verbose=0)
    _assert_weights(model, _step(start, IMAGES / 255, _targets(LABELS, 1.0)))


def test_images_that_the_network_cannot_take_are_refused():
    model = _model(network=linear_network(SHAPE, 3))
    with pytest.raises(ValueError, match=r"cannot be called.*images of shape \(4, 4, 1\)"):
        model.fit(np.zeros([6, 4, 4, 1], np.uint8), LABELS, verbose=0)


def test_a_network_that_is_built_late_trains():
    model = AutoLabelModel(LateNetwork(), num_classes=3)
    model.compile(keras.optimizers.SGD(RATE))
    model.network(IMAGES / np.float32(255))
    start = model.network.get_weights()
    model.fit(IMAGES, LABELS, batch_size=6, verbose=0)
    _assert_weights(model, _step(start, IMAGES / 255, _targets(LABELS, 1.0)))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("sparse_categorical_crossentropy", "must be a keras.losses.Loss object"),
        (keras.losses.sparse_categorical_crossentropy, "must be a keras.losses.Loss object"),
        (SoftTargetLoss(OneHot()), "label policy of its own"),
        (
            keras.losses.SparseCategoricalCrossentropy(),
            r"pass from_logits=True. Received: SparseCategoricalCrossentropy\(from_logits=False\)",
        ),
    ],
)
def test_losses_are_checked(loss, message):
    with pytest.raises(ValueError, match=message):
        _model().compile("sgd", loss)


FLOATS = IMAGES / np.float32(255)
WITH_NAN = np.where(np.arange(6).reshape(-1, 1, 1, 1) == 3, np.nan, FLOATS).astype(np.float32)

WRONG_TYPES = [
    (IMAGES[..., 0], LABELS, r"Received: images.shape=\(.*2, 2\)"),
    (IMAGES.astype(np.int32), LABELS, "images.dtype=int32"),
    (IMAGES, LABELS.astype(str), "labels.dtype=string"),
    (IMAGES, LABELS.reshape(6, 1, 1), r"labels.shape=\(.*1, 1\)"),
]
WRONG_VALUES = [
    (IMAGES, LABELS + 1, r"Labels must lie in 0\.\.2"),
    (IMAGES, LABELS - 1, r"Labels must lie in 0\.\.2"),
    (WITH_NAN, LABELS, r"must lie in \[0, 1\] without NaN"),
    (IMAGES.astype(np.float32), LABELS, r"must lie in \[0, 1\] without NaN; divide by 255"),
    (FLOATS - 0.5, LABELS, r"must lie in \[0, 1\]"),
]


@pytest.mark.parametrize("kind", ["array", "dataset"])
@pytest.mark.parametrize(("images", "labels", "message"), WRONG_TYPES)
def test_types_are_checked_before_any_step(images, labels, message, kind):
    model = _model(Dimming())
    data = (images, labels)
    if kind == "dataset":
        data = (tf.data.Dataset.from_tensor_slices(data).batch(2),)
    with pytest.raises(ValueError, match=message):
        model.fit(*data, verbose=0)
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize(("images", "labels", "message"), WRONG_VALUES)
def test_values_of_arrays_are_checked_before_any_step(images, labels, message):
    model = _model(Dimming())
    with pytest.raises(ValueError, match=message):
        model.fit(images, labels, batch_size=1, verbose=0)
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize("kind", ["arrays", "weights", "dataset"])
@pytest.mark.parametrize(("images", "labels", "message"), WRONG_TYPES + WRONG_VALUES)
def test_validation_data_is_checked_before_any_step(images, labels, message, kind):
    model, data = _model(Dimming()), (images, labels)
    if kind == "weights":
        data = (*data, np.ones(6))
    elif kind == "dataset":
        if message in [row[2] for row in WRONG_VALUES]:
            pytest.skip("values of a dataset are checked when they come")
        data = tf.data.Dataset.from_tensor_slices(data).batch(2)
    with pytest.raises(ValueError, match=f"validation_data: .*{message}"):
        model.fit(IMAGES, LABELS, validation_data=data, verbose=0)
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize(
    "arguments", [{"batch_size": 5}, {"batch_size": 1}, {"batch_size": 4, "validation_split": 0.1}]
)
def test_mixup_refuses_a_last_batch_of_one_image(arguments):
    model = _model(Mixup())
    with pytest.raises(ValueError, match=r"the last one would hold 1.*Received: [56] images"):
        model.fit(IMAGES, LABELS, verbose=0, **arguments)
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize("arguments", [{"batch_size": 4}, {"batch_size": 5, "steps_per_epoch": 1}])
def test_mixup_takes_other_batches(arguments):
    assert _model(Mixup()).fit(IMAGES, LABELS, verbose=0, **arguments).history["loss"]


@pytest.mark.parametrize("augmentation", [None, Dimming()])
@pytest.mark.parametrize(("images", "labels", "message"), WRONG_VALUES)
def test_values_of_datasets_are_checked_at_their_step(augmentation, images, labels, message):
    model = _model(augmentation)
    start = model.network.get_weights()
    data = tf.data.Dataset.from_tensors((images, labels))
    with pytest.raises(ValueError, match=message) as raised:
        model.fit(data, verbose=0)
    assert "\n" not in str(raised.value)
    _assert_weights(model, start, atol=0)


@pytest.mark.parametrize(("images", "labels", "message"), [WRONG_TYPES[0], WRONG_TYPES[3]])
def test_evaluate_checks_types(images, labels, message):
    with pytest.raises(ValueError, match=message):
        _model().evaluate(images, labels, verbose=0)


@pytest.mark.parametrize(("images", "labels", "message"), WRONG_VALUES[2:])
def test_evaluate_checks_images(images, labels, message):
    with pytest.raises(ValueError, match=message):
        _model().evaluate(images, labels, verbose=0)


# --- weights that training broke ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_weights_that_are_not_finite_are_named(dtype):
    layers = [keras.layers.Dense(4, name="fine"), keras.layers.Dense(3, name="broken", dtype=dtype)]
    network = _network(*layers)
    assert names_of_non_finite(network.weights) == []
    for value in (np.nan, -np.inf):
        layers[1].bias.assign([0.0, value, 0.0])
        (name,) = names_of_non_finite([*network.weights, tf.Variable(3)])
        assert "broken/bias" in name


def test_large_weights_are_finite():
    assert names_of_non_finite([tf.Variable(1e300, dtype=tf.float64)]) == []


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
