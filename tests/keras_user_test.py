"""A Keras user's first hour: the habits of the official examples give right answers, or a line."""

import configparser
import functools
import pathlib
import re
import types
import warnings

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits
from tensorflow import keras

import keras_autolabel as kal
from tests.conftest import numpy_softmax

KERAS_3 = hasattr(keras, "ops")
SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    images = np.round(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return images, labels.astype(np.int64)


def _network(*first, classes=10, head=None):
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            *first,
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(classes, activation=head),
        ]
    )


def _compiled(model):
    model.compile(keras.optimizers.Adam(0.01))
    return model


def _mixing(num_buckets=3, **options):
    """A model of ten classes with mixup; without a graph of its step, which takes longest."""
    model = kal.AutoLabelModel(
        _network(), kal.Mixup(num_buckets=num_buckets), num_classes=10, **options
    )
    model.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
    return model


def _refused(function, *values) -> str:
    """The one line that a call ends in; it names the values."""
    with pytest.raises(ValueError) as raised:
        function()
    message = str(raised.value)
    assert "\n" not in message
    for value in values:
        assert value in message, message
    return message


# --- 2: preprocessing inside the network ----------------------------------------------------------


def test_a_network_that_rescales_is_told_of_and_right_in_its_own_range(digits, tmp_path):
    images, labels = digits
    rescaling = keras.layers.Rescaling(1 / 255)
    unbuilt = keras.Sequential([rescaling, keras.layers.Flatten(), keras.layers.Dense(10)])
    padded = _network(keras.layers.ZeroPadding2D(), rescaling)
    for network in (_network(rescaling), padded, unbuilt):
        _refused(
            lambda network=network: kal.AutoLabelModel(network, num_classes=10),
            *("rescaling", "value_range=(0, 255)"),
        )
    for wrong in ((255, 0), ("0", "255"), (0, np.inf), 255):
        _refused(
            lambda wrong=wrong: kal.AutoLabelModel(_network(), num_classes=10, value_range=wrong),
            f"value_range={wrong!r}",
        )
    inside, outside = _network(rescaling), _network()
    inside.set_weights(outside.get_weights())
    attack = kal.PGD(epsilon=0.1, num_steps=2, num_buckets=2)
    models = [
        _compiled(kal.AutoLabelModel(inside, attack, num_classes=10, value_range=(0, 255))),
        _compiled(kal.AutoLabelModel(outside, attack, num_classes=10)),
    ]
    histories = []
    for model in models:
        model.run_eagerly = True
        callback = kal.AutoLabel((images[600:700], labels[600:700]), step_size=0.5)
        options = {"epochs": 2, "shuffle": False, "verbose": 0, "callbacks": [callback]}
        histories.append(model.fit(images[:64], labels[:64], **options).history)
        batch = model.augment(images[:64], labels[:64])
        moved = np.abs(batch.images - images[:64] / np.float32(255)).max(axis=(1, 2, 3))
        # ε is on [0, 1] whatever the network's own range is.
        assert 0.05 < moved.max() <= 0.1 + 1e-6
    for name, values in histories[1].items():
        np.testing.assert_allclose(histories[0][name], values, rtol=1e-3, atol=1e-4, err_msg=name)
    expected = models[1].predict(images[600:700], verbose=0)
    for given in (images[600:700], images[600:700] / 255):
        np.testing.assert_allclose(models[0].predict(given, verbose=0), expected, atol=1e-3)
    models[0].export(str(tmp_path / "exported"))
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(exported(images[600:700])["logits"], expected, atol=1e-3)
    models[0].save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    again.run_eagerly = True
    assert again.value_range == (0, 255)
    np.testing.assert_allclose(again.predict(images[600:700], verbose=0), expected, atol=1e-3)


def test_applications_that_preprocess_are_told_of():
    shape = (32, 32, 3)
    options = {"weights": None, "include_top": False, "pooling": "avg", "input_shape": shape}
    # The second begins as EfficientNet does.
    normal = keras.layers.Normalization(mean=[0.485, 0.456, 0.406], variance=[0.05] * 3)
    first = [keras.Input(shape), keras.layers.Rescaling(1 / 255), normal]
    for backbone in (
        keras.applications.MobileNetV3Small(minimalistic=True, **options),
        keras.Sequential([*first, keras.layers.GlobalAveragePooling2D()]),
    ):
        network = keras.Sequential(
            [keras.Input(shape), keras.layers.RandomFlip(), backbone, keras.layers.Dense(3)]
        )
        _refused(
            lambda network=network: kal.AutoLabelModel(network, num_classes=3),
            "value_range=(0, 255)",
        )
        kal.AutoLabelModel(network, num_classes=3, value_range=(0, 255))
    # Keras' older applications are fed by a function of tensors.
    images = keras.Input(shape)
    moved = keras.Sequential([keras.layers.RandomFlip(), keras.layers.RandomRotation(0.1)])(images)
    preprocessed = keras.applications.mobilenet_v2.preprocess_input(moved)
    means_off = keras.applications.resnet50.preprocess_input(images)
    for tensor, fits in ((preprocessed, (0, 255)), (means_off, (0, 255)), (images / 0.5, (0, 1))):
        logits = keras.layers.Dense(3)(keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(tensor)))
        network = keras.Model(images, logits)
        kal.AutoLabelModel(network, num_classes=3, value_range=fits)
        if tensor is preprocessed:
            of_unit_images = functools.partial(kal.AutoLabelModel, network, num_classes=3)
            _refused(of_unit_images, "value_range=(0, 255)")
    normal = keras.layers.Normalization(mean=[123.0], variance=[58.0**2])
    _refused(lambda: kal.AutoLabelModel(_network(normal), num_classes=10), "value_range=(0, 255)")
    kal.AutoLabelModel(_network(normal), num_classes=10, value_range=(0, 255))
    unit = keras.layers.Normalization(mean=[0.3], variance=[0.35**2])
    kal.AutoLabelModel(_network(unit), num_classes=10)
    _refused(
        lambda: kal.AutoLabelModel(_network(unit), num_classes=10, value_range=(0, 255)), "(0, 1)"
    )


# --- 3: images in another range -------------------------------------------------------------------


def test_floats_of_0_to_255_are_refused_wherever_they_come_in(digits, tmp_path):
    images, labels = digits[0][:64], digits[1][:64]
    bytes_as_floats = images.astype(np.float32)
    model = _compiled(kal.AutoLabelModel(_network(), num_classes=10))
    data = tf.data.Dataset.from_tensor_slices((bytes_as_floats, labels)).batch(16)
    for refused in (
        lambda: model.predict(bytes_as_floats, verbose=0),
        lambda: model.evaluate(bytes_as_floats, labels, verbose=0),
        lambda: model.evaluate(data, verbose=0),
        lambda: model.fit(bytes_as_floats, labels, verbose=0),
        lambda: model.fit(data, verbose=0),
        lambda: model.train_on_batch(bytes_as_floats, labels),
        lambda: model.test_on_batch(bytes_as_floats, labels),
        lambda: model.predict_on_batch(bytes_as_floats),
        lambda: model(bytes_as_floats),
        lambda: model.probability_model().predict(bytes_as_floats, verbose=0),
        lambda: model.probability_model().predict_on_batch(bytes_as_floats),
        lambda: model.probability_model()(bytes_as_floats),
    ):
        _refused(refused, "[0, 1]", "255")
    _refused(lambda: model(images[0]), "[B, H, W, C]", "(8, 8, 1)")
    _refused(lambda: model(images.astype(np.int32)), "int32")
    # The tutorial's probability model: Keras 3 casts uint8 to floats of 0..255 on the way, Keras 2
    # leaves it as it is.
    tutorial = keras.Sequential([model, keras.layers.Softmax()])
    if not KERAS_3:
        expected = model.probability_model().predict(images, verbose=0)
        np.testing.assert_allclose(tutorial.predict(images, verbose=0), expected, atol=1e-6)
    model.export(str(tmp_path / "exported"))
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    others = [lambda: tutorial(bytes_as_floats), lambda: exported(bytes_as_floats)]
    if KERAS_3:
        others.append(lambda: tutorial.predict(images, verbose=0))
    for refused in others:
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=r"\[0, 1\]"):
            refused()


def test_the_probability_model_is_a_plain_model_of_calibrated_probabilities(digits, tmp_path):
    images, labels = digits
    model = _mixing(label_policy=kal.MixupLabels())
    model.fit(images[:64], labels[:64], verbose=0)
    logits = model.predict(images[600:700], verbose=0).astype(np.float64)
    expected = numpy_softmax(logits / 1.7)
    plain = model.probability_model(temperature=1.7)
    plain.save(tmp_path / "model.keras")
    for given in (images[600:700], images[600:700] / 255, images[600:700] / np.float32(255)):
        np.testing.assert_allclose(plain.predict(given, verbose=0), expected, atol=1e-5)
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(images[600:700], verbose=0), expected, atol=1e-5)
    _refused(lambda: model.probability_model(temperature=0.0), "temperature=0.0")


# --- 4: heads that return no logits ---------------------------------------------------------------


class Subclassed(keras.Model):
    def __init__(self, classes=10, head=None, width=16):
        super().__init__()
        self.first = keras.layers.Conv2D(width, 3, activation="relu")
        self.pool = keras.layers.GlobalAveragePooling2D()
        self.last = keras.layers.Dense(classes, activation=head)

    def call(self, images, training=False):
        return self.last(self.pool(self.first(images)))


@pytest.mark.parametrize("head", ["sigmoid", "relu", "softmax", "tanh"])
def test_a_head_that_returns_no_logits_is_refused_by_name(head):
    _refused(lambda: kal.AutoLabelModel(_network(head=head), num_classes=10), head, "dense")
    layer = keras.layers.Activation(head, name="the_last")
    network = keras.Sequential([_network(), layer])
    network.build((None, *SHAPE))
    _refused(lambda: kal.AutoLabelModel(network, num_classes=10), head, "the_last")


def test_one_sigmoid_for_two_classes_is_refused():
    _refused(
        lambda: kal.AutoLabelModel(_network(classes=1, head="sigmoid"), num_classes=2), "sigmoid"
    )
    _refused(lambda: kal.AutoLabelModel(_network(classes=1), num_classes=2), "[B, 1]")


@pytest.mark.parametrize("head", ["sigmoid", "relu", "softmax"])
def test_a_subclassed_network_is_probed(digits, head):
    images, labels = digits[0][:32], digits[1][:32]
    model = _compiled(kal.AutoLabelModel(Subclassed(head=head), num_classes=10))
    _refused(lambda: model.fit(images, labels, verbose=0))


def test_what_is_no_layer_with_a_name_is_probed():
    images = keras.Input(SHAPE)
    logits = keras.layers.Dense(10)(keras.layers.Flatten()(images))
    outputs = [keras.layers.Lambda(tf.nn.sigmoid)(logits)]
    if KERAS_3:
        outputs += [keras.ops.sigmoid(logits), keras.ops.relu(logits)]
    for output in outputs:
        network = keras.Model(images, output)
        _refused(lambda network=network: kal.AutoLabelModel(network, num_classes=10), "negative")


@pytest.mark.parametrize("classes", [2, 10])
def test_networks_that_return_logits_pass_whatever_their_weights(digits, classes):
    images = digits[0][:8]
    for seed in range(2):
        keras.utils.set_random_seed(seed)
        for network in (Subclassed(classes), Subclassed(classes, width=2)):
            model = _compiled(kal.AutoLabelModel(network, num_classes=classes))
            model.check_network(images.shape[1:])
        kal.AutoLabelModel(_network(classes=classes), num_classes=classes)


# --- 6, 7: callbacks ------------------------------------------------------------------------------


def test_a_forgotten_callback_is_named_at_the_end_of_the_first_epoch(digits):
    images, labels = digits[0][:64], digits[1][:64]
    model = _mixing()
    with pytest.warns(UserWarning, match="keras_autolabel.AutoLabel") as caught:
        model.fit(images, labels, epochs=2, verbose=0)
    assert len([w for w in caught if "keras_autolabel.AutoLabel" in str(w.message)]) == 1
    model = _mixing(label_policy=kal.MixupLabels())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(images, labels, verbose=0, callbacks=[])


@pytest.mark.usefixtures("eagerly")
def test_what_is_saved_is_the_table_of_the_next_epoch(digits, tmp_path):
    images, labels = digits
    model = _mixing()
    auto = kal.AutoLabel((images[600:700], labels[600:700]), step_size=0.5)
    before, behind = (
        keras.callbacks.ModelCheckpoint(str(tmp_path / f"{place}-{{epoch}}.keras"))
        for place in ("before", "behind")
    )
    callbacks = [before, auto, behind]
    model.fit(images[:64], labels[:64], epochs=2, verbose=0, callbacks=callbacks)
    for epoch, entry in enumerate(auto.history, start=1):
        for place in ("before", "behind"):
            saved = keras.models.load_model(tmp_path / f"{place}-{epoch}.keras")
            np.testing.assert_array_equal(saved.label_policy.confidence, entry["label"])


@pytest.mark.usefixtures("eagerly")
def test_the_best_checkpoint_has_the_labels_of_its_epoch(digits, tmp_path):
    images, labels = digits
    model = _mixing()
    auto = kal.AutoLabel((images[600:700], labels[600:700]), step_size=0.5)
    whole, alone = (str(tmp_path / f"best{ending}") for ending in (".keras", ".weights.h5"))
    weights = []

    class Rating(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["rating"] = (0.1, 0.3, 0.2)[epoch]
            weights.append(self.model.network.get_weights())

    options = {"mode": "max", "save_best_only": True}
    saves = [
        keras.callbacks.ModelCheckpoint(path, "rating", save_weights_only=path == alone, **options)
        for path in (whole, alone)
    ]
    callbacks = [Rating(), *saves, auto]
    model.fit(images[:64], labels[:64], epochs=3, verbose=0, callbacks=callbacks)
    first, second, third = (entry["label"] for entry in auto.history)
    assert np.any(first != second) and np.any(second != third)
    filled = _mixing()
    filled.load_weights(alone)
    for best in (keras.models.load_model(whole), filled):
        np.testing.assert_array_equal(best.label_policy.confidence, second)
        for one, other in zip(best.network.get_weights(), weights[1], strict=True):
            np.testing.assert_array_equal(one, other)


def test_an_order_that_keeps_old_labels_is_told_of(digits, tmp_path):
    images, labels = digits[0][:64], digits[1][:64]
    model = _mixing()
    auto = kal.AutoLabel((images, labels), step_size=0.5)
    backup = keras.callbacks.BackupAndRestore(str(tmp_path))

    def told(callbacks) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # It is told of before the first epoch.
            model.fit(images, labels, epochs=0, verbose=0, callbacks=callbacks)
        return [str(w.message) for w in caught if "one update old" in str(w.message)]

    # A list is put into order; whose list of Keras' own it is, keeps it.
    for ordered in ([auto, backup], [backup, auto]):
        assert not told(ordered)
    own = functools.partial(keras.callbacks.CallbackList, model=model, epochs=0)
    assert not told(own([auto, backup]))
    (message,) = told(own([backup, auto]))
    assert "BackupAndRestore" in message and "AutoLabel first" in message


# --- 8: arguments ---------------------------------------------------------------------------------


def test_arguments_that_cannot_be_meant_are_refused(digits):
    table, model = kal.LabelTable((3,)), kal.AutoLabelModel(_network(), num_classes=10)
    _refused(lambda: kal.AutoLabelModel(_network(), table, num_classes=10), "LabelTable")
    _refused(lambda: kal.HalfAdversarial(0.1), "attack=0.1")
    _refused(lambda: kal.Mixup().dataset_transform(seed=0.5), "seed=0.5")
    for wrong in ("0.5", None, [0.5]):
        step_size = functools.partial(kal.AutoLabel, (digits[0], digits[1]), step_size=wrong)
        temperature = functools.partial(model.probability_model, temperature=wrong)
        _refused(step_size, f"step_size={wrong!r}")
        _refused(temperature, f"temperature={wrong!r}")


# --- 9: labels and data as Keras gives them -------------------------------------------------------


class Batches(keras.utils.Sequence):
    """A ``PyDataset``, as Keras 3 calls it."""

    def __init__(self, images, labels):
        super().__init__()
        self.images, self.labels = images, labels

    def __len__(self):
        return -(-len(self.labels) // 20)

    def __getitem__(self, index):
        rows = slice(20 * index, 20 * index + 20)
        return self.images[rows], self.labels[rows]


def _trained_on(*data):
    """A model after two epochs, its losses, accuracies and table."""
    keras.utils.set_random_seed(3)
    model = kal.AutoLabelModel(_network(), kal.Mixup(num_buckets=2), num_classes=10)
    # A graph where Keras makes the batches.
    eager = len(data) == 2
    model.compile(keras.optimizers.Adam(0.01), metrics=["accuracy"], run_eagerly=eager)
    options = {"epochs": 2, "shuffle": False, "verbose": 0}
    holdout = data if len(data) == 2 else data[0]
    options |= {"batch_size": 20} if holdout is data else {}
    history = model.fit(*data, callbacks=[kal.AutoLabel(holdout)], **options).history
    return model, (history["loss"], history["accuracy"], model.label_policy.confidence.numpy())


@pytest.fixture(scope="module")
def on_class_numbers(digits):
    return _trained_on(digits[0][:60], digits[1][:60])[1]


# What else labels may be stands in batch_test.py.
@pytest.mark.parametrize("kind", ["one_hot", "sequence"])
def test_labels_of_other_forms_train_as_class_numbers_do(digits, on_class_numbers, kind):
    images, labels = digits[0][:60], digits[1][:60]
    data = {
        "one_hot": (images, keras.utils.to_categorical(labels, 10)),
        "sequence": (Batches(images, labels),),
    }[kind]
    model, found = _trained_on(*data)
    for one, other in zip(found, on_class_numbers, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    of_class_numbers = model.evaluate(images, labels, batch_size=20, verbose=0)
    options = {"batch_size": 20} if kind != "sequence" else {}
    assert model.evaluate(*data, verbose=0, **options) == of_class_numbers


@pytest.mark.usefixtures("eagerly")
def test_folders_of_images_in_every_label_mode(tmp_path):
    rng = np.random.default_rng(0)
    for number, name in enumerate(("dark", "light")):
        (tmp_path / name).mkdir()
        for index in range(10):
            pixels = rng.integers(0, 128, (8, 8, 1)) + 127 * number
            encoded = tf.io.encode_png(pixels.astype(np.uint8)).numpy()
            (tmp_path / name / f"{index}.png").write_bytes(encoded)

    def trained_on(data):
        keras.utils.set_random_seed(0)
        network = _network(keras.layers.Rescaling(1 / 255), classes=2)
        model = kal.AutoLabelModel(network, kal.Mixup(), num_classes=2, value_range=(0, 255))
        model.compile("adam", metrics=["accuracy"], run_eagerly=True)
        model.fit(data, verbose=0, callbacks=[kal.AutoLabel(data)])
        return model, [*model.get_weights(), *model.evaluate(data, verbose=0)]

    trained = {}
    for label_mode in ("int", "categorical", "binary"):
        data = keras.utils.image_dataset_from_directory(
            str(tmp_path),
            label_mode=label_mode,
            color_mode="grayscale",
            image_size=(8, 8),
            batch_size=10,
            shuffle=False,
        )
        # Its images are floats of 0..255, for a network that rescales.
        unit = data.map(lambda images, labels: (images / 255.0, labels))
        model, trained[label_mode] = trained_on(unit)
        for one, other in zip(trained[label_mode], trained["int"], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6, err_msg=label_mode)
        _refused(lambda model=model, data=data: model.fit(data, verbose=0), "[0, 1]", "255")


def test_soft_labels_and_string_losses_end_in_one_line(digits):
    images = digits[0][:20]
    model = _compiled(kal.AutoLabelModel(_network(), num_classes=10))
    soft = np.full([20, 10], 0.1, np.float32)
    _refused(lambda: model.fit(images, soft, verbose=0), "one-hot")
    _refused(lambda: model.fit(images, np.eye(7)[np.arange(20) % 7], verbose=0), "(20, 7)")
    for loss in ("sparse_categorical_crossentropy", "categorical_crossentropy"):
        _refused(lambda loss=loss: model.compile("adam", loss), loss, "Leave loss out")
    for classes in (2, 10):
        compiled = kal.AutoLabelModel(_network(classes=classes), num_classes=classes).compile
        for name in ("CategoricalCrossentropy", "BinaryCrossentropy"):
            loss = getattr(keras.losses, name)(from_logits=True)
            _refused(functools.partial(compiled, "adam", loss), name, "one-hot")


# --- 10: built ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("eagerly")
def test_a_fresh_wrapper_is_built_as_soon_as_its_network_is(digits, tmp_path, capsys):
    images, labels = digits
    model = _mixing(4)
    assert model.built
    auto = kal.AutoLabel((images[600:700], labels[600:700]), step_size=0.5)
    model.fit(images[:64], labels[:64], verbose=0, callbacks=[auto])
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = kal.AutoLabelModel(_network(), kal.Mixup(num_buckets=4), num_classes=10)
    fresh.load_weights(tmp_path / "model.weights.h5")
    for one, other in zip(fresh.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    fresh.summary()
    assert re.search(r"\(4,?\)", capsys.readouterr().out)


@pytest.mark.usefixtures("eagerly")
def test_backup_and_restore_brings_the_table_back(digits, tmp_path):
    images, labels = digits
    holdout = images[600:700], labels[600:700]

    def run(stop_after=None, folder="whole"):
        keras.utils.set_random_seed(0)
        model = _mixing(2)

        class Stop(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == stop_after:
                    raise KeyboardInterrupt

        backup = keras.callbacks.BackupAndRestore(str(tmp_path / folder))
        callbacks = [backup, kal.AutoLabel(holdout, step_size=0.5), Stop()]
        options = {"epochs": 2, "shuffle": False, "verbose": 0, "callbacks": callbacks}
        if stop_after is None:
            model.fit(images[:64], labels[:64], **options)
        else:
            with pytest.raises(KeyboardInterrupt):
                model.fit(images[:64], labels[:64], **options)
        return model

    whole = run()
    run(stop_after=1, folder="killed")
    again = run(folder="killed")
    np.testing.assert_allclose(
        again.label_policy.confidence, whole.label_policy.confidence, atol=1e-6
    )
    for one, other in zip(again.network.get_weights(), whole.network.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


# --- 11: the progress line ------------------------------------------------------------------------


@pytest.mark.usefixtures("eagerly")
def test_the_progress_line_has_one_figure_of_the_labels(digits, tmp_path, capsys):
    images, labels = digits
    model = _mixing()
    model.compile("adam", metrics=["accuracy", kal.ExpectedCalibrationError()], run_eagerly=True)
    csv = tmp_path / "log.csv"
    callbacks = [keras.callbacks.CSVLogger(csv), kal.AutoLabel((images[600:700], labels[600:700]))]
    history = model.fit(images[:64], labels[:64], verbose=2, callbacks=callbacks).history
    line = capsys.readouterr().out.splitlines()[-1]
    for name in ("accuracy", "ece", "loss", "label_mean"):
        assert f"{name}: " in line
    assert "holdout" not in line and "label_confidence" not in line
    header = csv.read_text("utf-8").splitlines()[0].split(",")
    assert set(history) - {"epoch"} <= set(header)
    # One figure of each bucket, which others log.
    assert {f"label_confidence_{n}" for n in range(3)} < set(history)


# --- 12: compilation and channels -----------------------------------------------------------------


@pytest.mark.parametrize("augmentation", [None, kal.Mixup()])
def test_jit_compile_auto_is_off(augmentation):
    model = kal.AutoLabelModel(_network(), augmentation, num_classes=10)
    model.compile("sgd", jit_compile="auto")
    assert not model.jit_compile


class Darker(kal.Augmentation):
    """XLA draws other distances from a seed: what trains must not depend on them."""

    def apply(self, images, labels, drawn, network=None):
        return self.moved(0.5 * tf.cast(images, tf.float32) / 255.0, labels, drawn)


@pytest.mark.parametrize("augmentation", [None, Darker(num_buckets=2)], ids=["none", "own"])
def test_what_xla_compiles_trains_the_same(digits, augmentation):
    images, labels = digits[0][:64], digits[1][:64]
    weights = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        policy = kal.LabelTable((2,), initial=0.8) if augmentation else None
        model = kal.AutoLabelModel(_network(), augmentation, num_classes=10, label_policy=policy)
        options = {"jit_compile": jit_compile, "run_eagerly": not jit_compile}
        model.compile(keras.optimizers.SGD(0.1), **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(images, labels, verbose=0, shuffle=False)
        weights.append(model.network.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_compile_takes_its_arguments_by_place(digits):
    model = kal.AutoLabelModel(_network(), num_classes=10)
    model.compile("adam", None, ["accuracy"])
    model.run_eagerly = True
    assert "accuracy" in model.fit(digits[0][:32], digits[1][:32], verbose=0).history


@pytest.mark.skipif(not KERAS_3, reason="Keras 2 exports in one format")
def test_export_takes_the_formats_of_keras(digits, tmp_path):
    model = kal.AutoLabelModel(_network(), num_classes=10)
    model.export(str(tmp_path / "ours"), format="tf_saved_model")
    assert "serving_default" in tf.saved_model.load(str(tmp_path / "ours")).signatures
    with pytest.raises(ValueError, match="nonsense"):
        model.export(str(tmp_path / "other"), format="nonsense")


# --- 13: one line each ----------------------------------------------------------------------------


def test_mistakes_of_construction_end_in_one_line():
    network, images = _network(), keras.Input(SHAPE)
    flat = keras.layers.Flatten()(images)
    heads = [keras.layers.Dense(10)(flat) for _ in range(2)]
    two = keras.Model([images, keras.Input((3,))], heads[0])
    for wrong, value in (
        (keras.Model(images, heads), "one output"),
        (keras.Model(images, {"a": heads[0], "b": heads[1]}), "one output"),
        (keras.Model({"pixels": images}, heads[0]), "one input"),
        (two, "one input"),
        (keras.Sequential, "keras.Sequential"),
        (keras.applications.ResNet50, "ResNet50"),
        ("resnet", "resnet"),
        (keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)]), "(None, 64)"),
    ):
        _refused(lambda wrong=wrong: kal.AutoLabelModel(wrong, num_classes=10), value)
    for wrong, value in ((kal.Mixup, "Mixup()"), (keras.layers.RandomFlip(), "RandomFlip")):
        _refused(lambda wrong=wrong: kal.AutoLabelModel(network, wrong, num_classes=10), value)
    for wrong in (kal.OneHot, 0.9):
        _refused(
            lambda wrong=wrong: kal.AutoLabelModel(network, num_classes=10, label_policy=wrong),
            f"label_policy={wrong!r}",
        )
    wrapped = kal.AutoLabelModel(network, num_classes=10)
    _refused(lambda: kal.AutoLabelModel(wrapped, num_classes=10), "model.network")
    pixels = np.zeros([20, *SHAPE], np.uint8)
    _refused(lambda: kal.AutoLabel(pixels), "ndarray")
    model = _compiled(kal.AutoLabelModel(network, num_classes=10))
    _refused(lambda: model.fit(pixels, verbose=0), "Labels are missing")
    for wrong in ("10", 10.5, 1, None):
        _refused(
            lambda wrong=wrong: kal.AutoLabelModel(network, num_classes=wrong),
            f"num_classes={wrong!r}",
        )


@pytest.mark.parametrize(("shape", "warm"), [((8, 8, 3), True), ((9, 9, 1), False)])
def test_images_of_another_size_or_number_of_channels_end_in_one_line(digits, shape, warm):
    images, labels = digits[0][:32], digits[1][:32]
    model = _compiled(kal.AutoLabelModel(_network(), num_classes=10))
    if warm:
        # Keras traces a second shape as one of any size, and fails only when the graph runs.
        model.fit(images, labels, verbose=0)
        model.evaluate(images, labels, verbose=0)
        expected = model.predict(images, verbose=0)
    before = model.network.get_weights()
    others = np.zeros([32, *shape], np.uint8)
    data = tf.data.Dataset.from_tensor_slices((others, labels)).batch(8)
    for refused in (
        lambda: model.fit(others, labels, verbose=0),
        lambda: model.evaluate(others, labels, verbose=0),
        lambda: model.evaluate(data, verbose=0),
        lambda: model.predict(others, verbose=0),
        lambda: model.predict(data, verbose=0),
        lambda: model.predict(data.map(lambda x, _: x), verbose=0),
        lambda: model.train_on_batch(others, labels),
        lambda: model.test_on_batch(others, labels),
        lambda: model.predict_on_batch(others),
    ):
        _refused(refused, str(shape))
    for one, other in zip(model.network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    if warm:
        np.testing.assert_array_equal(model.predict(images, verbose=0), expected)
    model.fit(images, labels, verbose=0)


def test_images_of_another_size_are_taken_where_the_network_takes_them(digits):
    layers = [keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()]
    network = keras.Sequential([keras.Input((None, None, 1)), *layers, keras.layers.Dense(10)])
    model = _compiled(kal.AutoLabelModel(network, num_classes=10))
    model.run_eagerly = True
    model.fit(digits[0][:32], digits[1][:32], verbose=0)
    larger = np.pad(digits[0][:4], [(0, 0), (0, 3), (0, 1), (0, 0)])
    found = model.predict(larger, verbose=0)
    np.testing.assert_allclose(found, network(larger / np.float32(255)), atol=1e-5)


def test_missing_classes_among_many_are_counted_and_the_first_few_named(digits):
    network = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten()])
    network.add(keras.layers.Dense(21_841))
    model = _compiled(kal.AutoLabelModel(network, kal.AugMix(max_depth=1), num_classes=21_841))
    images, labels = np.zeros([4, 2, 2, 1], np.uint8), np.array([0, 2, 3, 21_840])
    auto = kal.AutoLabel((images, labels))
    auto.set_model(model)
    with pytest.warns(UserWarning, match=r"21837 of the 21841 classes \(1, 4, 5, 6, 7, ...\)"):
        auto.on_train_begin()


# --- 16: the package ------------------------------------------------------------------------------


def test_what_a_wheel_says_of_itself_stands_alone():
    root = pathlib.Path(__file__).parents[1]
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg", encoding="utf-8")
    kind, page = config["metadata"]["long_description"].split(": ")
    assert kind == "file"
    # No picture and no page of a checkout, which nothing shows beside a wheel.
    links = re.findall(r"\]\(([^)]*)\)", (root / page).read_text(encoding="utf-8"))
    assert all(link.startswith("https://") for link in links)
    classifiers = config["metadata"]["classifiers"].split("\n")
    for minor in (10, 11, 12, 13):
        assert f"Programming Language :: Python :: 3.{minor}" in classifiers
    assert {"plots", "test", "train", "onnx"} <= {*config["options.extras_require"]}


@pytest.mark.usefixtures("eagerly")
def test_public_names_are_all_there_and_no_others():
    public = {name for name, value in vars(kal).items() if not isinstance(value, types.ModuleType)}
    assert {*kal.__all__} == {name for name in public if name[0] != "_"} | {"__version__"}
    holdout = np.zeros([20, *SHAPE], np.uint8), np.arange(20) % 10
    model, auto = _mixing(), kal.AutoLabel(holdout)
    model.fit(*holdout, verbose=0, callbacks=[auto])
    assert auto.history[0].keys() == kal.LabelEpoch.__annotations__.keys()
