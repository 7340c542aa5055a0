import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import AugMix, AutoLabelModel, LabelTable, Mixup, OneHot, SoftTargetLoss
from keras_autolabel.checks import names_of_non_finite
from tests.conftest import Dimming, linear_network, numpy_softmax

RATE = 0.5
SHAPE = (2, 2, 1)
IMAGES = np.random.default_rng(5).integers(256, size=[6, *SHAPE]).astype(np.uint8)
FLOATS = IMAGES / np.float32(255)
LABELS = np.array([0, 1, 2, 2, 1, 0])


def _model(augmentation=None, *, network=None, run_eagerly=False, **arguments) -> AutoLabelModel:
    network = network or linear_network(SHAPE, 3)
    model = AutoLabelModel(network, augmentation, num_classes=3, **arguments)
    model.compile(keras.optimizers.SGD(RATE), metrics=["accuracy"], run_eagerly=run_eagerly)
    return model


def _logits(parameters, images) -> np.ndarray:
    weights, bias = parameters
    return np.reshape(images, [len(images), -1]).astype(np.float64) @ weights + bias


def _losses(parameters, images, targets) -> np.ndarray:
    return -(targets * np.log(numpy_softmax(_logits(parameters, images)))).sum(axis=-1)


def _step(parameters, images, targets) -> list[np.ndarray]:
    """One step of SGD on a linear network.

    z = xW + b, loss = mean_i CE(target_i, softmax(z_i)), so that
    dloss/dz_i = (softmax(z_i) - target_i)/B, dloss/dW = Σ x_i^T dz_i and dloss/db = Σ dz_i.
    """
    weights, bias = parameters
    inputs = np.reshape(images, [len(images), -1]).astype(np.float64)
    gradient = (numpy_softmax(_logits(parameters, images)) - targets) / len(images)
    return [weights - RATE * inputs.T @ gradient, bias - RATE * gradient.sum(axis=0)]


def _targets(labels, confidence) -> np.ndarray:
    """Eq. (2) with three classes."""
    confidence = np.broadcast_to(confidence, len(labels))[:, np.newaxis]
    one_hot = np.eye(3)[labels]
    return one_hot * confidence + (1 - one_hot) * (1 - confidence) / 2


def _assert_weights(model, expected, atol=1e-6) -> None:
    for actual, weights in zip(model.network.get_weights(), expected, strict=True):
        np.testing.assert_allclose(actual, weights, atol=atol)


# --- fit, by hand; beside Keras' own it stands in keras_promises_test.py --------------------------


def test_two_steps_and_a_last_batch_of_another_size():
    model = _model(label_policy=LabelTable((1,), initial=0.7))
    parameters, losses, hits = model.network.get_weights(), [], []
    for rows in (slice(0, 4), slice(4, 6)):
        images, targets = IMAGES[rows] / 255, _targets(LABELS[rows], 0.7)
        losses.extend(_losses(parameters, images, targets))
        hits.extend(_logits(parameters, images).argmax(axis=-1) == LABELS[rows])
        parameters = _step(parameters, images, targets)
    history = model.fit(IMAGES, LABELS, batch_size=4, shuffle=False, verbose=0).history
    _assert_weights(model, parameters)
    # The mean over images, not over batches.
    np.testing.assert_allclose(history["loss"], [np.mean(losses)], atol=1e-6)
    np.testing.assert_allclose(history["accuracy"], [np.mean(hits)])


def test_labels_are_gathered_by_bucket_and_again_after_an_update():
    model = _model(Dimming())
    np.testing.assert_array_equal(model.label_policy.confidence, np.float32([0.7] * 3))
    parameters = model.network.get_weights()
    # Label k is in bucket k, dimmed to 1 - k/3.
    dimmed = IMAGES / 255 * (1 - LABELS / 3).reshape(-1, 1, 1, 1)
    for table in ([0.9, 0.6, 0.4], [0.5, 1.0, 0.8]):
        model.label_policy.confidence.assign(table)
        model.fit(IMAGES, LABELS, batch_size=6, verbose=0)
        parameters = _step(parameters, dimmed, _targets(LABELS, np.array(table)[LABELS]))
        _assert_weights(model, parameters)


def test_a_dataset_that_is_already_augmented_trains_the_same():
    inside, ahead = _model(Dimming(), run_eagerly=True), _model(Dimming())
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


TABLE = LabelTable((1,), initial=0.7)
KERAS_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize(("loss", "label"), [(KERAS_LOSS, 1.0), (SoftTargetLoss(TABLE), 0.7)])
def test_a_loss_may_be_given(loss, label):
    model = _model(label_policy=TABLE)
    model.compile(keras.optimizers.SGD(RATE), loss, run_eagerly=True)
    start = model.network.get_weights()
    model.fit(IMAGES, LABELS, batch_size=6, verbose=0)
    _assert_weights(model, _step(start, IMAGES / 255, _targets(LABELS, label)))


def test_mixed_precision_does_not_round_images(mixed_precision):
    # A layer in single precision inside a model of mixed precision.
    layers = [keras.layers.Flatten(dtype="float32"), keras.layers.Dense(3, dtype="float32")]
    model = _model(network=keras.Sequential([keras.Input(SHAPE), *layers]))
    assert model.compute_dtype == mixed_precision.removeprefix("mixed_")
    expected = _logits(model.network.get_weights(), IMAGES / 255)
    for images in (IMAGES, FLOATS):
        np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-6)


def test_mixed_precision_keeps_label_and_loss_in_float32(mixed_precision):
    network = linear_network(SHAPE, 3)
    # Logits that half precision holds exactly, so that the label and the loss alone can round.
    network.set_weights([np.zeros([4, 3]), np.array([1.0, 0.5, -2.25])])
    assert network(FLOATS).dtype == mixed_precision.removeprefix("mixed_")
    expected = _losses(network.get_weights(), IMAGES / 255, _targets(LABELS, 0.9)).mean()
    table = LabelTable((1,), initial=0.9)
    model = _model(network=network, label_policy=table, run_eagerly=True)
    history = model.fit(IMAGES, LABELS, batch_size=6, verbose=0).history
    np.testing.assert_allclose(history["loss"], [expected], rtol=1e-6)


def test_a_network_in_double_precision():
    layers = [keras.layers.Flatten(dtype="float64"), keras.layers.Dense(3, dtype="float64")]
    network = keras.Sequential([keras.Input(SHAPE, dtype="float64"), *layers])
    model = _model(network=network, run_eagerly=True)
    start = model.network.get_weights()
    model.fit(IMAGES, LABELS, batch_size=6, verbose=0)
    assert model.network.get_weights()[0].dtype == np.float64
    _assert_weights(model, _step(start, IMAGES / 255, _targets(LABELS, 1.0)))


# --- evaluate and predict -------------------------------------------------------------------------


def test_evaluate_and_predict_take_plain_images():
    model = _model(Dimming())
    model.label_policy.confidence.assign([0.5, 0.5, 0.5])
    parameters = model.network.get_weights()
    logits = _logits(parameters, IMAGES / 255)
    # Clean images and one-hot labels, whatever the table says.
    loss = _losses(parameters, IMAGES / 255, np.eye(3)[LABELS]).mean()
    accuracy = (logits.argmax(axis=-1) == LABELS).mean()
    for images in (IMAGES, FLOATS, IMAGES / 255):
        logs = model.evaluate(images, LABELS, batch_size=4, verbose=0, return_dict=True)
        np.testing.assert_allclose([logs["loss"], logs["accuracy"]], [loss, accuracy], rtol=1e-5)
        np.testing.assert_allclose(model.predict(images, verbose=0), logits, atol=1e-5)
    data = tf.data.Dataset.from_tensor_slices((images, LABELS)).batch(4)
    assert model.evaluate(data, verbose=0, return_dict=True) == logs


def test_evaluate_takes_a_column_of_labels_after_a_row():
    # Keras then traces for labels of any rank.
    model = _model()
    logs = [model.evaluate(IMAGES, labels, verbose=0) for labels in (LABELS, LABELS[:, np.newaxis])]
    assert logs[0] == logs[1]


# --- configuration --------------------------------------------------------------------------------


def test_the_seed_repeats_what_is_drawn_and_another_draws_anew():
    first, again, other = (
        _model(AugMix(), seed=seed).augment(IMAGES, LABELS).distance.numpy() for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(again, first)
    assert not np.any(np.isin(other, first))


@pytest.mark.parametrize("augmentation", [None, AugMix(num_buckets=4, max_depth=2)])
def test_config_round_trip(augmentation):
    model = _model(augmentation, seed=9, value_range=(-1, 1))
    copy = keras.utils.deserialize_keras_object(keras.utils.serialize_keras_object(model))
    assert copy.get_config() == model.get_config()
    assert type(copy.augmentation) is type(augmentation)
    assert (copy.seed, copy.num_classes, copy.value_range) == (9, 3, (-1, 1))


@pytest.mark.parametrize("loss", [None, KERAS_LOSS], ids=["own", "of Keras"])
def test_saved_models_carry_weights_table_loss_and_optimizer(tmp_path, loss):
    model = _model(Dimming())
    optimizer = keras.optimizers.SGD(RATE, momentum=0.9)
    model.compile(optimizer, loss, metrics=["accuracy"], run_eagerly=True)
    model.label_policy.confidence.assign([0.9, 0.6, 0.4])
    model.fit(IMAGES, LABELS, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    _assert_weights(copy, model.network.get_weights(), atol=0)
    np.testing.assert_array_equal(copy.label_policy.confidence, np.float32([0.9, 0.6, 0.4]))
    # The momentum and both counters came too: both go on in the same way.
    histories = [m.fit(IMAGES, LABELS, epochs=2, verbose=0).history for m in (model, copy)]
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], atol=1e-6)
    assert histories[0].keys() == histories[1].keys() == {"loss", "accuracy"}
    _assert_weights(copy, model.network.get_weights())
    for one in (model, copy):
        assert int(one.optimizer.iterations) == int(one.draws) == 4


def test_a_model_that_was_never_compiled_is_saved_and_asks_to_be_compiled(tmp_path):
    model = AutoLabelModel(linear_network(SHAPE, 3), Dimming(), num_classes=3)
    model.label_policy.confidence.assign([0.9, 0.6, 0.4])
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    _assert_weights(copy, model.network.get_weights(), atol=0)
    np.testing.assert_array_equal(copy.label_policy.confidence, np.float32([0.9, 0.6, 0.4]))
    for one in (model, copy):
        with pytest.raises((RuntimeError, ValueError), match="compile"):
            one.fit(IMAGES, LABELS, verbose=0)


# --- what is refused ------------------------------------------------------------------------------


class LateNetwork(keras.Model):
    """A subclassed network: its input is unknown until images come."""

    def __init__(self, activation=None):
        super().__init__()
        self.flatten = keras.layers.Flatten()
        self.dense = keras.layers.Dense(3, activation=activation)

    def call(self, images, training=False):
        return self.dense(self.flatten(images))


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ({"num_classes": 4}, ["num_classes=4", "[B, 3]"]),
        ({"seed": -1}, ["seed=-1"]),
        ({"seed": 2**31}, ["seed=2147483648"]),
        ({"seed": 0.5}, ["seed=0.5"]),
        ({"value_range": (1, 1)}, ["value_range=(1, 1)"]),
        ({"value_range": 255}, ["value_range=255"]),
        ({"label_policy": LabelTable((2,))}, ["(2,)", "(1,)"]),
        ({"label_policy": LabelTable((4,)), "augmentation": Dimming()}, ["(4,)", "(3,)"]),
        (
            {"network": keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(3, 1)])},
            ["[B, 2, 2, 3]"],
        ),
    ],
)
def test_construction_is_checked(arguments, values):
    with pytest.raises(ValueError) as raised:
        AutoLabelModel(**{"network": linear_network(SHAPE, 3), "num_classes": 3, **arguments})
    assert all(value in str(raised.value) for value in values)


def test_probabilities_in_bfloat16_are_found():
    # A third is 0.333984375 in bfloat16, whichever layer it comes out of.
    third = keras.layers.Lambda(lambda x: tf.cast(0.0 * x + 0.333984375, tf.bfloat16))
    network = keras.Sequential([linear_network(SHAPE, 3), third])
    sums = tf.reduce_sum(tf.cast(network(FLOATS), tf.float32), axis=-1)
    np.testing.assert_array_equal(sums, np.full(6, 3 * 0.333984375, np.float32))
    with pytest.raises(ValueError, match="softmax"):
        AutoLabelModel(network, num_classes=3)


def test_a_network_that_is_built_late_is_checked_by_a_dataset_that_is_augmented():
    model = _model(Dimming(), network=LateNetwork("softmax"))
    data = tf.data.Dataset.from_tensors((IMAGES, LABELS))
    with pytest.raises(ValueError, match="softmax"):
        model.fit(data.apply(Dimming().dataset_transform(seed=1)), verbose=0)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (linear_network(SHAPE, 3), [None] * 4),
        (LateNetwork(), [None, None, None, 1]),
    ],
)
def test_datasets_may_leave_sizes_open(network, shape):
    network(FLOATS)
    start = network.get_weights()
    model = _model(network=network)
    specs = tf.TensorSpec(shape, tf.uint8), tf.TensorSpec([None], tf.int64)
    data = tf.data.Dataset.from_generator(lambda: [(IMAGES, LABELS)], output_signature=specs)
    model.fit(data, validation_data=data, verbose=0)
    _assert_weights(model, _step(start, IMAGES / 255, _targets(LABELS, 1.0)))


@pytest.mark.parametrize(
    ("loss", "value"),
    [
        (keras.losses.sparse_categorical_crossentropy, "sparse_categorical_crossentropy"),
        (SoftTargetLoss(OneHot()), "label_policy"),
        (
            keras.losses.SparseCategoricalCrossentropy(),
            "SparseCategoricalCrossentropy(from_logits=False)",
        ),
    ],
)
def test_losses_are_checked(loss, value):
    with pytest.raises(ValueError) as raised:
        _model().compile("sgd", loss)
    assert value in str(raised.value)


# Images, labels, and what the message must name.
WRONG_TYPES = {
    "rank": (IMAGES[..., 0], LABELS, "2, 2)"),
    "size": (np.zeros([6, 4, 4, 1], np.uint8), LABELS, "(4, 4, 1)"),
    "type": (IMAGES.astype(np.int32), LABELS, "images.dtype=int32"),
    "label type": (IMAGES, LABELS.astype(str), "labels.dtype=string"),
    "label rank": (IMAGES, LABELS.reshape(6, 1, 1), "1, 1)"),
}
WITH_NAN = np.where(np.arange(6).reshape(-1, 1, 1, 1) == 3, np.nan, FLOATS).astype(np.float32)
WRONG_VALUES = {
    "above": (IMAGES, LABELS + 1, "1, 3"),
    "below": (IMAGES, LABELS - 1, "-1, 1"),
    "broken": (IMAGES, LABELS + 0.5, "whole"),
    "nan": (WITH_NAN, LABELS, "nan"),
    "255": (IMAGES.astype(np.float32), LABELS, "[0, 1]"),
    "negative": (FLOATS - 0.5, LABELS, "-0.5"),
}


def _ways(images, labels) -> dict:
    """How images and labels come into a model."""
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(6)
    options = {"validation_data": (images, labels, np.ones(6)), "verbose": 0}
    return {
        "fit": lambda model: model.fit(images, labels, verbose=0),
        "fit, dataset": lambda model: model.fit(data, verbose=0),
        "validation": lambda model: model.fit(IMAGES, LABELS, **options),
        "evaluate": lambda model: model.evaluate(images, labels, verbose=0),
    }


@pytest.fixture(scope="module")
def untrained() -> AutoLabelModel:
    """One model for all that is refused, which leaves it as it was."""
    return _model(Dimming())


@pytest.mark.parametrize("way", ["fit", "fit, dataset", "validation", "evaluate"])
@pytest.mark.parametrize("name", [*WRONG_TYPES, *WRONG_VALUES])
def test_wrong_images_and_labels_are_refused_before_any_update(name, way, untrained):
    images, labels, value = {**WRONG_TYPES, **WRONG_VALUES}[name]
    model, start = untrained, linear_network(SHAPE, 3).get_weights()
    with pytest.raises(ValueError) as raised:
        _ways(images, labels)[way](model)
    # What is wrong with a type only Keras tells evaluate, in its own words.
    if way != "evaluate" or name in WRONG_VALUES:
        assert value in str(raised.value) and "\n" not in str(raised.value)
    assert str(raised.value).startswith("validation_data: ") == (way == "validation")
    _assert_weights(model, start, atol=0)


@pytest.mark.parametrize(
    "arguments", [{"batch_size": 5}, {"batch_size": 1}, {"batch_size": 4, "validation_split": 0.1}]
)
def test_mixup_refuses_a_last_batch_of_one_image(arguments):
    model = _model(Mixup())
    with pytest.raises(ValueError, match=r"would hold 1;.*Received: [56] images"):
        model.fit(IMAGES, LABELS, verbose=0, **arguments)
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize("arguments", [{"batch_size": 4}, {"batch_size": 5, "steps_per_epoch": 1}])
def test_mixup_takes_other_batches(arguments):
    assert (
        _model(Mixup(), run_eagerly=True)
        .fit(IMAGES, LABELS, verbose=0, **arguments)
        .history["loss"]
    )


# --- weights that training broke ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_weights_that_are_not_finite_are_named(dtype):
    layers = [keras.layers.Dense(4, name="fine"), keras.layers.Dense(3, name="broken", dtype=dtype)]
    network = keras.Sequential([keras.Input((4,)), *layers])
    large = tf.Variable(1e300, dtype=tf.float64)
    assert names_of_non_finite([*network.weights, large]) == []
    for value in (np.nan, -np.inf):
        layers[1].bias.assign([0.0, value, 0.0])
        (name,) = names_of_non_finite([*network.weights, tf.Variable(3)])
        assert "broken/bias" in name
