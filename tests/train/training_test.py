import functools
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

import data
from keras_autolabel import AugMix, AutoLabelModel
from tests.conftest import linear_network, numpy_calibration, numpy_softmax
from train import builders, choices, run_folder, training
from train.builders import build_model
from train.evaluation import figures_of
from train.settings import Settings
from train.training import run, train

WHOLE_RUNS = [("none", "one_hot"), ("augmix", "autolabel"), ("pgd", "ccat")]
# Their figures and exports are made by the same lines as those of the runs above.
TRAINED_ONLY = [
    ("augmix", "label_smoothing"),
    ("randaugment", "autolabel"),
    ("mixup", "mixup"),
    ("cutmix", "autolabel"),
    ("soft_crop", "power"),
    ("pgd", "autolabel"),
]
TABLES = {"augmix": np.ones((3, 2)), "randaugment": np.ones(2), "pgd": np.ones(2)}
# Ordinary CutMix in the middle of each bucket: distance 1/4 and 3/4, share 1 - distance/2.
TABLES["cutmix"] = np.array([0.875, 0.625])


def _settings(**options) -> Settings:
    small = {
        "epochs": 1,
        "batch_size": 32,
        "num_buckets": 2,
        "examples_per_bucket": 20,
        "attack_steps": 2,
        "augmentation": "none",
        "labels": "one_hot",
    }
    return Settings(**{**small, **options})


@pytest.fixture(scope="module")
def splits() -> data.Splits:
    return data.load("digits", train_examples=100, holdout_examples=50)


@pytest.fixture
def linear(monkeypatch):
    """A linear network in place of a residual one: what is tested is around it."""
    monkeypatch.setattr(
        builders,
        "build_network",
        lambda settings, split, classes: linear_network(split.image_shape, classes, scale=0.05),
    )


def _eager_model(settings: Settings, splits: data.Splits) -> AutoLabelModel:
    """Without a graph of the train step, which takes most of the time of a short training."""
    model = build_model(settings, splits)
    model.run_eagerly = True
    return model


def _metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text("utf-8"))


def test_each_draw_of_a_run_that_goes_on_is_that_of_a_whole_run(
    splits, linear, tmp_path, monkeypatch
):
    settings = _settings(augmentation="mixup", labels="mixup", epochs=2)
    save = run_folder.Checkpoints.on_epoch_end

    def save_and_die(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt
        save(self, epoch, logs)

    ends = []
    for name in ("whole", "interrupted"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "interrupted":
            # The second epoch stands in history.csv and in no checkpoint.
            with monkeypatch.context() as patch:
                patch.setattr(run_folder.Checkpoints, "on_epoch_end", save_and_die)
                with pytest.raises(KeyboardInterrupt):
                    train(_eager_model(settings, splits), settings, splits, str(folder))
            assert len(run_folder.read_history(str(folder))) == 2
        model = _eager_model(settings, splits)
        train(model, settings, splits, str(folder))
        ends.append((model.get_weights(), (folder / "history.csv").read_bytes()))
    # What is done is not trained again.
    monkeypatch.setattr(AutoLabelModel, "fit", lambda *_, **__: pytest.fail("trained again"))
    again = _eager_model(settings, splits)
    train(again, settings, splits, str(tmp_path / "whole"))
    (weights, history), (weights_resumed, history_resumed) = ends
    assert history_resumed == history
    for others in (weights_resumed, again.get_weights()):
        for expected, actual in zip(weights, others, strict=True):
            np.testing.assert_array_equal(actual, expected)


class Terminating(keras.callbacks.Callback):
    """Sends SIGTERM while a step of an epoch, both counted from 0, is under way."""

    def __init__(self, epoch: int, step: int):
        super().__init__()
        self.at = epoch, step

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("augmentation", ["mixup", "pgd"])
def test_sigterm_ends_behind_the_step_and_the_rest_is_that_of_a_whole_run(
    splits, linear, tmp_path, augmentation, capsys
):
    # In a graph once, each of which takes seconds.
    in_a_graph = augmentation == "mixup"
    build = build_model if in_a_graph else _eager_model
    settings = _settings(augmentation=augmentation, labels="autolabel", epochs=2, batch_size=32)
    steps = len(splits.train) // 32
    assert steps >= 3
    ends = []
    for name in ("whole", "terminated"):
        folder = tmp_path / name
        folder.mkdir()
        model = build(settings, splits)
        if name == "terminated":
            # In the first step, the last but one, the last of an epoch, and the first of the next.
            ends_at = [
                ((0, 0), "0 epochs and 1 steps"),
                ((0, steps - 3), f"0 epochs and {steps - 1} steps"),
                ((0, 0), "1 epochs and 0 steps"),
                ((1, 1), "1 epochs and 2 steps"),
            ]
            for at, message in ends_at[-1:] if in_a_graph else ends_at:
                with pytest.raises(run_folder.Terminated, match=message):
                    train(model, settings, splits, str(folder), [Terminating(*at)])
                model = build(settings, splits)
        train(model, settings, splits, str(folder))
        ends.append((model.get_weights(), (folder / "history.csv").read_bytes()))
    assert f"continues after epoch 1 of 2, step 2 of {steps}." in capsys.readouterr().out
    (weights, history), (weights_resumed, history_resumed) = ends
    assert history_resumed == history
    for expected, actual in zip(weights, weights_resumed, strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_checkpoints_inside_an_epoch_come_by_the_clock(splits, linear, tmp_path):
    settings = _settings(augmentation="none", labels="one_hot", epochs=1, batch_size=32)
    steps = len(splits.train) // 32
    for minutes, number in ((0.0, steps), (60.0, 1)):
        folder = tmp_path / str(minutes)
        folder.mkdir()
        train(
            _eager_model(settings, splits), settings, splits, str(folder), keep=9, minutes=minutes
        )
        assert len(list((folder / "checkpoints").glob("*.index"))) == number


def _check_labels(model, settings, folder: Path) -> None:
    """One update of at most ``step_size``, from where each augmentation starts; or no table."""
    if settings.labels != "autolabel":
        assert builders.label_table(model) is None
        return
    start, table = TABLES[settings.augmentation], builders.label_table(model)
    rows = run_folder.read_history(str(folder))
    (logged,) = run_folder.table_in(rows, "label_confidence", start.shape)
    np.testing.assert_allclose(table, logged, rtol=1e-6)
    (ece,) = run_folder.table_in(rows, "holdout_ece", start.shape)
    assert np.all(np.abs(table - start) <= settings.step_size * ece + 1e-6)


@pytest.mark.parametrize(("augmentation", "labels"), WHOLE_RUNS)
def test_each_kind_of_run_trains_measures_draws_and_exports(
    augmentation, labels, splits, linear, tmp_path, monkeypatch
):
    # Two operations of nine: each is traced in each step of a chain.
    augmix = functools.partial(AugMix, operations=("rotate", "solarize"))
    monkeypatch.setattr(choices.kal, "AugMix", augmix)
    settings = _settings(augmentation=augmentation, labels=labels)
    rows = run(settings, splits, str(tmp_path))
    metrics = _metrics(tmp_path)
    assert metrics["figures"] == rows
    model = keras.models.load_model(tmp_path / "model.keras")
    _check_labels(model, settings, tmp_path)
    table = builders.label_table(model)
    assert metrics["label_table"] == (None if table is None else table.tolist())
    drawn = {"reliability.png"}
    if augmentation != "none":
        drawn |= {"examples.png", "figure_1.png"}
    if labels == "autolabel":
        drawn |= {"label_table.png", "holdout_calibration.png"}
    assert set(os.listdir(tmp_path / "figures")) == drawn
    exported = tf.saved_model.load(str(tmp_path / "saved_model"))
    logits = exported(splits.test.images)["logits"].numpy()
    assert figures_of(splits.test.labels, logits) == pytest.approx(rows["test"], abs=1e-4)


@pytest.mark.parametrize(("augmentation", "labels"), TRAINED_ONLY)
def test_each_augmentation_and_each_policy_trains(augmentation, labels, splits, linear, tmp_path):
    settings = _settings(augmentation=augmentation, labels=labels)
    model = _eager_model(settings, splits)
    before = model.network.get_weights()
    train(model, settings, splits, str(tmp_path))
    (epoch,) = run_folder.read_history(str(tmp_path))
    # A network that knows nothing: ln 10, and the L2 penalty that a linear network has not.
    assert epoch["loss"] == pytest.approx(np.log(10.0), abs=0.2)
    moved = [np.abs(a - b).max() for a, b in zip(before, model.network.get_weights(), strict=True)]
    assert min(moved) > 1e-4
    _check_labels(model, settings, tmp_path)
    # The clean hold-out after the epoch, with NumPy; labels may be learned or fixed.
    kernel, bias = model.network.get_weights()
    inputs = splits.holdout.images.reshape(len(splits.holdout), -1) / 255.0
    expected = numpy_calibration(splits.holdout.labels, numpy_softmax(inputs @ kernel + bias))
    found = [epoch[f"holdout_{name}"] for name in ("ece", "confidence", "accuracy")]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_another_seed_is_another_order_and_another_augmentation(splits, linear, tmp_path):
    losses = []
    for seed in (0, 1):
        model = _eager_model(_settings(seed=seed), splits)
        assert model.seed == seed
        folder = tmp_path / str(seed)
        folder.mkdir()
        train(model, _settings(seed=seed), splits, str(folder))
        losses.append(run_folder.read_history(str(folder))[0]["loss"])
    assert losses[0] != losses[1]


def test_one_step_is_that_of_the_settings(splits, linear, tmp_path):
    """An epoch of one batch that holds every image: order does not matter, gradient by hand."""
    settings = _settings(batch_size=100, learning_rate=0.64)
    model = build_model(settings, splits)
    kernel, bias = (w.astype(np.float64) for w in model.network.get_weights())
    train(model, settings, splits, str(tmp_path))
    inputs = splits.train.images.reshape(100, -1) / 255.0
    logits = inputs @ kernel + bias
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    one_hot = np.arange(10) == splits.train.labels[:, np.newaxis]
    slope = (p - one_hot) / 100
    # 0.64 at a batch of 128 is 0.5 at one of 100; Nesterov's first step is 1.9 gradients long.
    for before, gradient, after in zip(
        (kernel, bias),
        (inputs.T @ slope, slope.sum(axis=0)),
        model.network.get_weights(),
        strict=True,
    ):
        np.testing.assert_allclose(after, before - 0.5 * 1.9 * gradient, atol=1e-5)
    (epoch,) = run_folder.read_history(str(tmp_path))
    loss = -np.log(p[np.arange(100), splits.train.labels]).mean()
    assert epoch["loss"] == pytest.approx(loss, rel=1e-5)
    assert epoch["accuracy"] == pytest.approx((p.argmax(-1) == splits.train.labels).mean())


@pytest.mark.parametrize(
    ("augmentation", "labels", "times"), [("none", "one_hot", 2), ("pgd", "one_hot", 1)]
)
def test_loss_that_is_not_finite_is_one_clear_error_each_time(
    augmentation, labels, times, splits, linear, tmp_path, monkeypatch
):
    settings = _settings(augmentation=augmentation, labels=labels, learning_rate=1e38, l2=0.0)
    monkeypatch.setattr(training, "measure", lambda *_: pytest.fail("measured"))
    # The same command again must not take the broken network for a finished one.
    for _ in range(times):
        with pytest.raises(ValueError, match=r"diverged; lower --learning_rate\. .*not finite"):
            run(settings, splits, str(tmp_path))
    assert not (tmp_path / "metrics.json").exists()
