import csv
import sys
import warnings

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import AugMix, AutoLabel, AutoLabelModel, LabelTable, Mixup, OneHot
from tests.conftest import Dimming, linear_network, numpy_calibration, numpy_softmax

SHAPE = (8, 8, 1)


def _model(augmentation=None, *, scale=0.3, seed=0) -> AutoLabelModel:
    network = linear_network(SHAPE, 10, scale=scale)
    augmentation = augmentation or Dimming()
    model = AutoLabelModel(network, augmentation, num_classes=10, seed=seed)
    model.compile(keras.optimizers.SGD(0.05))
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


def _fit(model, digits, *callbacks, epochs=1) -> dict:
    images, labels = digits
    arguments = {"batch_size": 32, "shuffle": False, "epochs": epochs, "verbose": 0}
    return model.fit(images[:64], labels[:64], callbacks=list(callbacks), **arguments).history


def test_table_after_each_epoch_is_equation_1(digits):
    images, labels = digits
    holdout = images[100:250], labels[100:250]
    model, callback = _model(), AutoLabel(holdout, step_size=0.5)
    table = np.array([0.7, 0.7, 0.7])
    for epoch in range(2):
        history = _fit(model, digits, callback)
        ece, conf, acc = _measured(model, *holdout)
        table = np.clip(table - 0.5 * ece * np.sign(conf - acc), np.maximum(acc, 0.1), 1.0)
        np.testing.assert_allclose(model.label_policy.confidence, table, atol=1e-5)
        record = callback.history[epoch]
        np.testing.assert_allclose(record["label"], table, atol=1e-5)
        np.testing.assert_allclose(record["ece"], ece, atol=1e-5)
        np.testing.assert_allclose(record["confidence"], conf, atol=1e-5)
        np.testing.assert_allclose(record["accuracy"], acc, atol=1e-5)
        for n in range(3):
            np.testing.assert_allclose(history[f"label_confidence_{n}"], [table[n]], atol=1e-5)
            np.testing.assert_allclose(history[f"holdout_ece_{n}"], [ece[n]], atol=1e-5)
            np.testing.assert_allclose(history[f"holdout_accuracy_{n}"], [acc[n]], atol=1e-5)
            np.testing.assert_allclose(history[f"holdout_confidence_{n}"], [conf[n]], atol=1e-5)
    assert np.ptp(table) > 0.01


def test_the_next_epoch_trains_with_the_new_labels(digits):
    holdout = [part[100:250] for part in digits]
    alone, watched = _model(), _model()
    callback = AutoLabel(holdout, step_size=0.5)
    for model, callbacks in ((alone, []), (watched, [callback])):
        model.fit(
            *[part[:64] for part in digits], epochs=2, shuffle=False, callbacks=callbacks, verbose=0
        )
    # The same training by hand: one epoch, the table of the first update, one epoch.
    by_hand = _model()
    for table in ([0.7] * 3, callback.history[0]["label"]):
        by_hand.label_policy.confidence.assign(table)
        by_hand.fit(*[part[:64] for part in digits], shuffle=False, verbose=0)
    for expected, actual, other in zip(
        by_hand.network.get_weights(),
        watched.network.get_weights(),
        alone.network.get_weights(),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected, atol=1e-6)
        assert np.abs(actual - other).max() > 1e-4


def test_a_dataset_as_holdout_equals_arrays(digits):
    images, labels = (part[100:250] for part in digits)
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(40)
    tables = []
    weighted = data.map(lambda x, y: (x, y, tf.ones_like(y)))
    for holdout in ((images, labels), (images, labels[:, np.newaxis]), data, weighted):
        model = _model()
        _fit(model, digits, AutoLabel(holdout))
        tables.append(model.label_policy.confidence.numpy())
    np.testing.assert_array_equal(tables[0], tables[1])
    np.testing.assert_allclose(tables[0], tables[2], atol=1e-6)


def test_number_of_bins(digits):
    holdout = [part[100:250] for part in digits]
    model, callback = _model(), AutoLabel(holdout, num_bins=3)
    _fit(model, digits, callback)
    ece = _measured(model, *holdout, num_bins=3)[0]
    np.testing.assert_allclose(callback.history[0]["ece"], ece, atol=1e-5)
    assert np.abs(ece - _measured(model, *holdout)[0]).max() > 1e-3


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


def test_start_epoch(digits):
    holdout = [part[100:250] for part in digits]
    model, callback = _model(), AutoLabel(holdout, start_epoch=2)
    history = _fit(model, digits, callback, epochs=4)
    tables = np.array([record["label"] for record in callback.history])
    np.testing.assert_array_equal(tables[:2], np.float32([[0.7] * 3] * 2))
    assert np.all(tables[2] != tables[1]) and np.all(tables[3] != tables[2])
    assert np.isnan(history["holdout_ece_0"][:2]).all()
    assert np.isfinite(history["holdout_ece_0"][2:]).all()


def test_logs_reach_callbacks_that_stand_behind(digits, tmp_path):
    holdout = [part[100:250] for part in digits]
    model, path = _model(), tmp_path / "log.csv"
    history = _fit(model, digits, AutoLabel(holdout), keras.callbacks.CSVLogger(path), epochs=2)
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("label_confidence_0", "holdout_ece_2", "holdout_accuracy_1"):
        np.testing.assert_allclose([float(row[name]) for row in rows], history[name])


def test_names_of_a_table_with_two_axes(digits):
    model = _model(AugMix(num_buckets=2, max_depth=3))
    history = _fit(model, digits, AutoLabel([part[100:130] for part in digits]))
    labels = {name for name in history if name.startswith("label_confidence")}
    assert labels == {f"label_confidence_{d}_{n}" for d in range(3) for n in range(2)}
    assert model.label_policy.confidence.shape == (3, 2)


# --- the pass over the hold-out -------------------------------------------------------------------


class Watched(AutoLabel):
    """Keeps what each call of the compiled pass was given."""

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.compiled, self.calls = self.sums_of_bucketed, []

        def watch(images, labels, bucket, weight, seed):
            self.calls.append([x.numpy() for x in (images, labels, bucket, weight, seed)])
            return self.compiled(images, labels, bucket, weight, seed)

        self.sums_of_bucketed = watch

    def rows(self) -> tuple[np.ndarray, ...]:
        """Images, labels and buckets of the rows that count, of all calls."""
        images, labels, bucket, weight = (
            np.concatenate(parts) for parts in list(zip(*self.calls, strict=True))[:4]
        )
        return images[weight > 0], labels[weight > 0], bucket[weight > 0]


def test_the_pass_compiles_once_and_visits_every_bucket_in_one_go(digits):
    images, labels = (part[:150] for part in digits)
    callback = Watched((images, labels))
    _fit(_model(), digits, callback, epochs=3)
    assert callback.compiled.experimental_get_tracing_count() == 1
    # 150 images in 3 buckets are 450 rows: two batches of 256 in each of three epochs.
    assert [len(call[0]) for call in callback.calls] == [256] * 6
    assert [call[3].sum() for call in callback.calls] == [256, 194] * 3
    assert all(set(call[2]) == {0, 1, 2} for call in callback.calls)
    callback.calls = callback.calls[:2]
    _, seen, bucket = callback.rows()
    for n in range(3):
        np.testing.assert_array_equal(np.sort(seen[bucket == n]), np.sort(labels))


def test_every_batch_of_every_epoch_has_a_seed_of_its_own(digits):
    holdout = [part[:150] for part in digits]
    callback, other = Watched(holdout), Watched(holdout)
    _fit(_model(), digits, callback, epochs=3)
    _fit(_model(seed=1), digits, other)
    seeds = {tuple(call[4]) for call in [*callback.calls, *other.calls]}
    assert len(seeds) == 8


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


def test_a_sample_is_never_larger_than_the_holdout(digits):
    holdout = [part[100:130] for part in digits]
    tables = []
    for size in (None, 30, 1000):
        model = _model()
        _fit(model, digits, AutoLabel(holdout, examples_per_bucket=size))
        tables.append(model.label_policy.confidence.numpy())
    np.testing.assert_allclose(tables[1], tables[0], atol=1e-6)
    np.testing.assert_allclose(tables[2], tables[0], atol=1e-6)


def test_padding_does_not_count(digits):
    holdout = [part[100:110] for part in digits]
    model, callback = _model(), Watched(holdout)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _fit(model, digits, callback)
    assert len(callback.calls) == 1 and len(callback.calls[0][0]) == 256
    np.testing.assert_allclose(callback.history[0]["ece"], _measured(model, *holdout)[0], atol=1e-5)


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
    with pytest.warns(UserWarning, match="No finite ECE in bucket 1 "):
        _fit(model, digits, callback)
    ece, conf, acc = _measured(model, *holdout)
    expected = np.clip(0.7 - 0.5 * ece * np.sign(conf - acc), np.maximum(acc, 0.1), 1)
    expected[1] = 0.7
    np.testing.assert_allclose(model.label_policy.confidence, expected, atol=1e-5)


def test_a_network_that_returns_nan_keeps_all_labels(digits):
    holdout = [part[100:250] for part in digits]
    model = _model()
    model.network.set_weights([np.full([64, 10], np.nan), np.zeros(10)])
    with pytest.warns(UserWarning, match="No finite ECE in bucket 0, 1, 2 .*its label is kept"):
        _fit(model, digits, AutoLabel(holdout))
    np.testing.assert_array_equal(model.label_policy.confidence, np.float32([0.7] * 3))


# --- what is refused ------------------------------------------------------------------------------

IMAGES, LABELS = np.zeros([20, *SHAPE], np.uint8), np.arange(20) % 10


@pytest.mark.parametrize(
    ("holdout", "arguments", "message"),
    [
        ((IMAGES[:0], LABELS[:0]), {}, "The hold-out is empty"),
        (
            tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).take(0).batch(4),
            {},
            "The hold-out is empty",
        ),
        ((IMAGES, LABELS[:19]), {}, "Received: 20 images, 19 labels"),
        (None, {}, r"must be \(images, labels\).*Received: None"),
        ((IMAGES, LABELS, LABELS), {}, r"must be \(images, labels\).*'ndarray', 'ndarray', 'nd"),
        (tf.data.Dataset.from_tensors(IMAGES), {}, r"must be \(images, labels\)"),
        (
            tf.data.Dataset.from_tensors((IMAGES, LABELS)).apply(Mixup().dataset_transform(seed=1)),
            {},
            r"not augmented.*Received: \['AugmentedBatch', 'ndarray'\]",
        ),
        (tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)), {}, "single examples: batch it"),
        ((IMAGES[..., 0], LABELS), {}, r"images.shape=\(20, 8, 8\)"),
        ((IMAGES.astype(int), LABELS), {}, "images.dtype=int64"),
        ((IMAGES, LABELS.astype(str)), {}, "labels.dtype=string"),
        ((IMAGES, LABELS), {"step_size": -0.1}, "Received: step_size=-0.1"),
        ((IMAGES, LABELS), {"step_size": float("nan")}, "Received: step_size=nan"),
        ((IMAGES, LABELS), {"num_bins": 0}, "num_bins=0"),
        ((IMAGES, LABELS), {"examples_per_bucket": 0}, "examples_per_bucket=0"),
        ((IMAGES, LABELS), {"examples_per_bucket": -5}, "Received: examples_per_bucket=-5"),
        ((IMAGES, LABELS), {"start_epoch": -1}, "Received: start_epoch=-1"),
    ],
)
def test_arguments_are_checked(holdout, arguments, message):
    with pytest.raises(ValueError, match=message):
        AutoLabel(holdout, **arguments)


@pytest.mark.parametrize(
    ("holdout", "message"),
    [
        ((IMAGES, LABELS + 1), r"Labels must lie in 0\.\.9"),
        ((IMAGES, LABELS - 1), "Received.* -1, 8"),
        ((IMAGES + np.float32(2), LABELS), r"must lie in \[0, 1\]"),
        ((np.full(IMAGES.shape, np.nan, np.float32), LABELS), "without NaN"),
    ],
)
def test_values_of_the_holdout_are_checked_before_training(digits, holdout, message):
    model = _model()
    with pytest.raises(ValueError, match=message):
        _fit(model, digits, AutoLabel(holdout))
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize("shape", [(9, 9, 1), (8, 8, 3)])
def test_the_size_of_the_holdout_is_checked_before_training(digits, shape):
    model, images = _model(), np.zeros([20, *shape], np.uint8)
    with pytest.raises(ValueError, match=r"The hold-out: The network.*images of shape \([89], "):
        _fit(model, digits, AutoLabel((images, LABELS)))
    assert int(model.optimizer.iterations) == 0


def test_a_loss_that_does_not_read_the_table_is_refused(digits):
    model = _model()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="leave loss out of compile. Received: loss=SparseCat"):
        _fit(model, digits, AutoLabel(digits))


def test_missing_classes_are_named(digits):
    images, labels = digits
    kept = ~np.isin(labels, [3, 7])
    with pytest.warns(UserWarning, match=r"2 of the 10 classes \(3, 7\)"):
        _fit(_model(), digits, AutoLabel((images[kept], labels[kept])))


def _models_without_a_table():
    network = linear_network(SHAPE, 10)
    plain = keras.Sequential([network])
    plain.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    clean = AutoLabelModel(network, num_classes=10, label_policy=LabelTable((1,)))
    fixed = AutoLabelModel(network, Dimming(), num_classes=10, label_policy=OneHot())
    for model in (clean, fixed):
        model.compile("sgd")
    return [
        (plain, "needs an AutoLabelModel.*Received: Sequential"),
        (clean, "needs an AutoLabelModel with an augmentation"),
        (fixed, "Received: label_policy=OneHot"),
    ]


def test_models_without_a_table_are_refused(digits):
    for model, message in _models_without_a_table():
        with pytest.raises(ValueError, match=message):
            _fit(model, digits, AutoLabel(digits))


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
