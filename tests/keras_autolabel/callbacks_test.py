import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import AutoLabel, AutoLabelModel, LabelTable, Mixup, OneHot
from tests.conftest import Dimming, linear_network, numpy_calibration, numpy_softmax

SHAPE = (8, 8, 1)


def _model(augmentation=None, *, seed=0, scale=0.3, run_eagerly=True) -> AutoLabelModel:
    # A graph of the train step takes most of the time: where nothing depends on it, there is none.
    network = linear_network(SHAPE, 10, scale=scale)
    augmentation = augmentation or Dimming()
    model = AutoLabelModel(network, augmentation, num_classes=10, seed=seed)
    model.compile(keras.optimizers.SGD(0.05), run_eagerly=run_eagerly)
    return model


def _measured(model, images, labels, num_bins=15) -> np.ndarray:
    """ECE, Conf and Acc of every bucket of ``Dimming``, with NumPy: [3, buckets]."""
    weights, bias = model.network.get_weights()
    num_buckets = model.augmentation.num_buckets
    columns = []
    for n in range(num_buckets):
        inputs = images.reshape(len(images), -1) / 255 * (1 - n / num_buckets)
        columns.append(numpy_calibration(labels, numpy_softmax(inputs @ weights + bias), num_bins))
    return np.transpose(columns)


def _fit(model, digits, callbacks=(), epochs=1) -> dict:
    images, labels = digits
    arguments = {"batch_size": 32, "shuffle": False, "epochs": epochs, "verbose": 0}
    return model.fit(images[:64], labels[:64], callbacks=callbacks, **arguments).history


def test_table_after_each_epoch_is_equation_1(digits):
    images, labels = digits
    holdout = images[100:250], labels[100:250]
    model, callback = _model(run_eagerly=False), AutoLabel(holdout, step_size=0.5)
    table = np.array([0.7, 0.7, 0.7])
    for epoch in range(2):
        history = _fit(model, digits, callback)
        ece, conf, acc = _measured(model, *holdout)
        table = np.clip(table - 0.5 * ece * np.sign(conf - acc), np.maximum(acc, 0.1), 1.0)
        np.testing.assert_allclose(model.label_policy.confidence, table, atol=1e-5)
        record = callback.history[epoch]
        assert record["epoch"] == 0
        np.testing.assert_allclose(record["label"], table, atol=1e-5)
        logs = [history[f"label_confidence_{n}"][0] for n in range(3)]
        np.testing.assert_allclose(logs, table, atol=1e-5)
        np.testing.assert_allclose(history["label_mean"], [table.mean()], atol=1e-5)
        for name, values in (("ece", ece), ("confidence", conf), ("accuracy", acc)):
            np.testing.assert_allclose(record[name], values, atol=1e-5)
            logs = [history[f"holdout_{name}_{n}"][0] for n in range(3)]
            np.testing.assert_allclose(logs, values, atol=1e-5)
            # Bucket 0 of ``Dimming`` is the hold-out as it is.
            np.testing.assert_allclose(record[f"clean_{name}"], values[0], atol=1e-5)
            np.testing.assert_allclose(history[f"holdout_{name}"], values[:1], atol=1e-5)
    assert np.ptp(table) > 0.01


@pytest.mark.usefixtures("eagerly")
def test_together_all_labels_take_one_step(digits):
    images, labels = digits
    holdout = images[100:250], labels[100:250]
    model = _model()
    # Surer than right: no label comes to one of its bounds.
    model.network.set_weights([2.0 * x for x in model.network.get_weights()])
    _fit(model, digits, AutoLabel(holdout, step_size=0.1, update="together"))
    ece, conf, acc = _measured(model, *holdout)
    # Bucket 0 of ``Dimming`` is the hold-out as it is.
    step = 0.1 * (np.mean(ece * np.sign(conf - acc)) + 3.0 * (conf[0] - acc[0]))
    table = model.label_policy.confidence.numpy()
    np.testing.assert_allclose(table, np.full(3, 0.7 - step), atol=1e-5)
    assert abs(step) > 0.01 and acc.max() < table.min() and table.max() < 1.0


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("last", [False, True])
def test_every_callback_gets_every_figure_wherever_it_stands(digits, last):
    seen = []
    keeps = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append({**logs}))
    callbacks = [keeps, keras.callbacks.History()]
    callbacks.insert(2 * last, AutoLabel([part[100:250] for part in digits]))
    history = _fit(_model(), digits, callbacks, epochs=2)
    # The history that was given is the one that Keras returns; what is saved beside it, all of it.
    assert {"label_mean", "label_confidence_2", "holdout_ece", "holdout_ece_2"} <= history.keys()
    for name, values in history.items():
        assert [logs[name] for logs in seen] == values


def test_the_next_epoch_trains_with_the_new_labels(digits):
    watched, by_hand = _model(run_eagerly=False), _model(run_eagerly=False)
    callback = AutoLabel([part[100:250] for part in digits], step_size=0.5)
    _fit(watched, digits, callback, epochs=2)
    # The same training by hand: one epoch, the table of the first update, one epoch.
    first = callback.history[0]["label"]
    assert np.abs(first - 0.7).max() > 0.01
    for table in ([0.7] * 3, first):
        by_hand.label_policy.confidence.assign(table)
        _fit(by_hand, digits)
    for actual, expected in zip(
        watched.network.get_weights(), by_hand.network.get_weights(), strict=True
    ):
        np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.usefixtures("eagerly")
def test_without_the_noise_floor(digits):
    holdout = images, labels = [part[100:250] for part in digits]
    model, callback = _model(scale=0.1), AutoLabel(holdout, step_size=0.5, debias=True)
    _fit(model, digits, callback)
    ece, conf, acc = _measured(model, *holdout)
    weights, bias = model.network.get_weights()
    expected = []
    for n in range(3):
        inputs = images.reshape(len(images), -1) / 255 * (1 - n / 3)
        confidence = numpy_softmax(inputs @ weights + bias).max(axis=-1)
        bins = [confidence[(confidence * 15).astype(int) == r] for r in range(15)]
        # |x| of a normal x has the mean σ·√(2/π); σ² of a bin is n·f·(1 - f).
        spread = [np.sqrt(len(x) * x.mean() * (1 - x.mean())) for x in bins if len(x)]
        floor = np.sqrt(2 / np.pi) * sum(spread) / len(images)
        expected.append(np.sqrt(max(ece[n] ** 2 - floor**2, 0.0)))
    np.testing.assert_allclose(callback.history[0]["ece"], expected, atol=1e-5)
    assert np.all(ece - expected > 0.005) and np.ptp(expected) > 0.005
    table = np.clip(0.7 - 0.5 * np.array(expected) * np.sign(conf - acc), np.maximum(acc, 0.1), 1)
    np.testing.assert_allclose(model.label_policy.confidence, table, atol=1e-5)


@pytest.mark.usefixtures("eagerly")
def test_a_dataset_as_holdout_equals_arrays(digits):
    images, labels = (part[100:250] for part in digits)
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(40)
    tables = []
    weighted = data.map(lambda x, y: (x, y, tf.zeros_like(y)))
    for holdout in ((images, labels), data, weighted):
        model = _model()
        _fit(model, digits, AutoLabel(holdout))
        tables.append(model.label_policy.confidence.numpy())
    for table in tables[1:]:
        np.testing.assert_allclose(table, tables[0], atol=1e-6)


@pytest.mark.usefixtures("eagerly")
def test_number_of_bins(digits):
    holdout = [part[100:250] for part in digits]
    model, callback = _model(), AutoLabel(holdout, num_bins=3)
    _fit(model, digits, callback)
    ece = _measured(model, *holdout, num_bins=3)[0]
    np.testing.assert_allclose(callback.history[0]["ece"], ece, atol=1e-5)
    assert np.abs(ece - _measured(model, *holdout)[0]).max() > 1e-3


@pytest.mark.usefixtures("eagerly")
def test_labels_do_not_fall_under_chance(digits):
    images, labels = digits
    holdout = images[labels > 0][:100], labels[labels > 0][:100]
    model = _model()
    model.optimizer.learning_rate = 0.0
    # Always class 0, for certain: accuracy 0, confidence 1, ECE 1.
    model.network.set_weights([np.zeros([64, 10]), 100.0 * np.eye(10)[0]])
    with pytest.warns(UserWarning, match=r"1 of the 10 classes \(0\)"):
        _fit(model, digits, AutoLabel(holdout, step_size=1.0))
    np.testing.assert_allclose(model.label_policy.confidence, [0.1, 0.1, 0.1], atol=1e-6)


@pytest.mark.usefixtures("eagerly")
def test_start_epoch(digits):
    holdout = [part[100:250] for part in digits]
    model, callback = _model(), AutoLabel(holdout, start_epoch=2)
    history = _fit(model, digits, callback, epochs=4)
    tables = np.array([record["label"] for record in callback.history])
    np.testing.assert_array_equal(tables[:2], np.float32([[0.7] * 3] * 2))
    assert np.all(tables[2] != tables[1]) and np.all(tables[3] != tables[2])
    assert np.isnan(history["holdout_ece_0"][:2]).all()
    assert np.isfinite(history["holdout_ece_0"][2:]).all()


# --- the pass over the hold-out -------------------------------------------------------------------


class Watched(AutoLabel):
    """Keeps what each call of the compiled pass was given."""

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.compiled, self.calls = self.sums_of_bucketed, []

        def watch(*arguments):
            self.calls.append([x.numpy() for x in arguments])
            return self.compiled(*arguments)

        self.sums_of_bucketed = watch

    def rows(self) -> tuple[np.ndarray, ...]:
        """Images, labels and buckets of the rows that count, of all calls."""
        images, labels, bucket, weight = (
            np.concatenate(parts) for parts in list(zip(*self.calls, strict=True))[:4]
        )
        return images[weight > 0], labels[weight > 0], bucket[weight > 0]


def test_the_pass_compiles_once_and_visits_every_bucket_in_one_go(digits):
    images, labels = (part[:150] for part in digits)
    callback, other = Watched((images, labels)), Watched((images, labels))
    _fit(_model(), digits, callback, epochs=3)
    assert callback.compiled.experimental_get_tracing_count() == 1
    # 150 images in 3 buckets are 450 rows: two batches of 256 in each of three epochs.
    assert [len(call[0]) for call in callback.calls] == [256] * 6
    assert [call[3].sum() for call in callback.calls] == [256, 194] * 3
    assert all(set(call[2]) == {0, 1, 2} for call in callback.calls)
    # Every batch of every epoch has a seed of its own, and another one in another model.
    _fit(_model(seed=1), digits, other)
    seeds = {(*call[4], int(call[5])) for call in [*callback.calls, *other.calls]}
    assert len(seeds) == 8
    callback.calls = callback.calls[:2]
    _, seen, bucket = callback.rows()
    for n in range(3):
        np.testing.assert_array_equal(np.sort(seen[bucket == n]), np.sort(labels))


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("size", [37, 100])
def test_samples_are_stratified_and_new_each_epoch(digits, size):
    images, labels = digits
    rng = np.random.default_rng(0)
    # Classes of very different sizes; the pixels of an image name it.
    kept = np.concatenate(
        [rng.permutation(np.flatnonzero(labels == k))[: 3 + 2 * k] for k in range(10)]
    )
    names = np.zeros([len(kept), 8, 8, 1], np.uint8)
    names[:, 0, 0, 0] = np.arange(len(kept))
    callback = Watched((names, labels[kept]), examples_per_bucket=size)
    _fit(_model(), digits, callback, epochs=2)
    share = np.bincount(labels[kept]) / len(kept)
    samples = []
    calls, per_epoch = callback.calls, len(callback.calls) // 2
    for epoch in range(2):
        callback.calls = calls[epoch * per_epoch : (epoch + 1) * per_epoch]
        seen_images, seen, bucket = callback.rows()
        for n in range(3):
            counts = np.bincount(seen[bucket == n], minlength=10)
            assert counts.sum() == size
            assert np.all(np.abs(counts - share * size) < 1)
            sample = np.sort(seen_images[bucket == n][:, 0, 0, 0])
            assert len(set(sample)) == size
            samples.append(tuple(sample))
    assert len(set(samples)) == 6


@pytest.mark.usefixtures("eagerly")
def test_a_sample_is_never_larger_than_the_holdout(digits):
    holdout = [part[100:130] for part in digits]
    tables = []
    for size in (None, 30, 1000):
        model = _model()
        _fit(model, digits, AutoLabel(holdout, examples_per_bucket=size))
        tables.append(model.label_policy.confidence.numpy())
    np.testing.assert_allclose(tables[1], tables[0], atol=1e-6)
    np.testing.assert_allclose(tables[2], tables[0], atol=1e-6)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(("num_buckets", "size"), [(3, 1500), (2, 2000), (5000, 1)])
def test_by_default_4500_images_are_divided_among_the_buckets(num_buckets, size):
    holdout = np.zeros([2000, *SHAPE], np.uint8), np.arange(2000) % 10
    callback = Watched(holdout)
    callback.set_model(_model(Dimming(num_buckets=num_buckets)))
    callback.on_train_begin()
    callback.measure(epoch=0)
    _, _, bucket = callback.rows()
    np.testing.assert_array_equal(np.bincount(bucket), [size] * num_buckets)


# --- what cannot be measured ----------------------------------------------------------------------


class Broken(Dimming):
    """``Dimming`` whose bucket 1 is not a number on the hold-out."""

    def __call__(self, images, labels, *, seed, bucket=None, network=None):
        batch = super().__call__(images, labels, seed=seed, bucket=bucket)
        if bucket is None:
            return batch
        nan = tf.where(batch.bucket == 1, np.float32(np.nan), 0.0)
        return batch._replace(images=batch.images + nan[:, tf.newaxis, tf.newaxis, tf.newaxis])


def test_a_bucket_with_nan_keeps_its_label_and_the_others_learn(digits):
    holdout = [part[100:250] for part in digits]
    model, callback = _model(Broken()), AutoLabel(holdout, step_size=0.5)
    with pytest.warns(UserWarning, match="Epoch 1: no finite ECE in bucket 1 "):
        _fit(model, digits, callback)
    ece, conf, acc = _measured(model, *holdout)
    expected = np.clip(0.7 - 0.5 * ece * np.sign(conf - acc), np.maximum(acc, 0.1), 1)
    expected[1] = 0.7
    np.testing.assert_allclose(model.label_policy.confidence, expected, atol=1e-5)


class Breaking(keras.callbacks.Callback):
    """Makes a weight no number behind the last step of an epoch."""

    def on_train_batch_end(self, batch, logs=None):
        if int(tf.convert_to_tensor(self.model.draws)) == 4:
            kernel, bias = self.model.network.get_weights()
            self.model.network.set_weights([kernel, np.full_like(bias, np.nan)])


@pytest.mark.usefixtures("eagerly")
def test_a_network_that_is_no_number_ends_training_and_leaves_the_labels(digits):
    holdout = tuple(part[100:250] for part in digits)
    model, callback = _model(), AutoLabel(holdout, step_size=0.5)
    with pytest.warns(UserWarning, match=r"epoch 2, after 4 steps in all, 1 weights are not fin"):
        history = _fit(model, digits, [callback, Breaking()], epochs=5)
    assert len(history["loss"]) == len(callback.history) == 2
    learned = callback.history[0]["label"]
    assert np.all(learned != np.float32(0.7))
    for label in (callback.history[1]["label"], model.label_policy.confidence):
        np.testing.assert_array_equal(label, learned)
    assert np.isnan(history["holdout_ece_0"][1])


@pytest.mark.usefixtures("eagerly")
def test_history_says_where_it_begins_when_a_model_is_trained_on(digits, capsys):
    holdout = tuple(part[100:250] for part in digits)
    images, labels = (part[:64] for part in digits)
    model, first, second = _model(), AutoLabel(holdout), AutoLabel(holdout)
    options = {"batch_size": 32, "verbose": 2}
    model.fit(images, labels, callbacks=[first], epochs=2, **options)
    model.fit(images, labels, callbacks=[first], initial_epoch=2, epochs=3, **options)
    assert "AutoLabel goes on" not in capsys.readouterr().out
    model.fit(images, labels, callbacks=[second], initial_epoch=3, epochs=5, **options)
    told = [line for line in capsys.readouterr().out.splitlines() if "AutoLabel goes on" in line]
    assert len(told) == 1 and "6 steps old" in told[0] and "begins with epoch 4" in told[0]
    assert [entry["epoch"] for entry in second.history] == [3, 4]


# --- what is refused ------------------------------------------------------------------------------

IMAGES, LABELS = np.zeros([20, *SHAPE], np.uint8), np.arange(20) % 10
DATA = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))


@pytest.mark.parametrize(
    ("holdout", "value"),
    [
        ((IMAGES[:0], LABELS[:0]), "empty"),
        (DATA.take(0).batch(4), "empty"),
        ((IMAGES, LABELS[:19]), "20 images, 19 labels"),
        (None, "None"),
        ((IMAGES, LABELS, LABELS), "['ndarray', 'ndarray', 'ndarray']"),
        (DATA.batch(20).map(lambda x, _: x), "(images, labels)"),
        (DATA.batch(20).apply(Mixup().dataset_transform(seed=1)), "['AugmentedBatch', 'ndarray']"),
        (DATA, "dataset.batch"),
        ((IMAGES[..., 0], LABELS), "images.shape=(20, 8, 8)"),
        ((IMAGES.astype(int), LABELS), "images.dtype=int64"),
        ((IMAGES, LABELS.astype(str)), "labels.dtype=string"),
    ],
)
def test_holdouts_are_checked(holdout, value):
    with pytest.raises(ValueError) as raised:
        AutoLabel(holdout)
    assert value in str(raised.value)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("step_size", -0.1), ("step_size", np.nan), ("num_bins", 0), ("start_epoch", -1)),
        *(("examples_per_bucket", 0), ("examples_per_bucket", 2.5), ("update", "alone")),
        ("num_bins", 1.5),
    ],
)
def test_arguments_are_checked(argument, value):
    with pytest.raises(ValueError, match=f"{argument}={value!r}"):
        AutoLabel((IMAGES, LABELS), **{argument: value})


@pytest.mark.parametrize(
    ("holdout", "value"),
    [
        ((IMAGES, LABELS + 1), "1, 10"),
        ((IMAGES, LABELS - 1), "-1, 8"),
        ((IMAGES + np.float32(2), LABELS), "[0, 1]"),
        ((np.full(IMAGES.shape, np.nan, np.float32), LABELS), "nan"),
        ((np.zeros([20, 9, 9, 1], np.uint8), LABELS), "(9, 9, 1)"),
        ((np.zeros([20, 8, 8, 3], np.uint8), LABELS), "(8, 8, 3)"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_before_training(digits, holdout, value):
    model = _model()
    with pytest.raises(ValueError) as raised:
        _fit(model, digits, AutoLabel(holdout))
    assert str(raised.value).startswith("The hold-out: ") and value in str(raised.value)
    assert int(model.optimizer.iterations) == 0


def _models_without_a_table():
    network = linear_network(SHAPE, 10)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    plain = keras.Sequential([network])
    clean = AutoLabelModel(network, num_classes=10, label_policy=LabelTable((1,)))
    fixed = AutoLabelModel(network, Dimming(), num_classes=10, label_policy=OneHot())
    other = AutoLabelModel(network, Dimming(), num_classes=10)
    for model in (clean, fixed):
        model.compile("sgd")
    for model in (plain, other):
        model.compile("sgd", loss)
    return [
        (plain, "Sequential"),
        (clean, "with an augmentation"),
        (fixed, "label_policy=OneHot"),
        (other, "loss=SparseCategoricalCrossentropy"),
    ]


def test_models_that_read_no_table_are_refused(digits):
    for model, value in _models_without_a_table():
        with pytest.raises(ValueError, match=value):
            _fit(model, digits, [AutoLabel(digits)])
