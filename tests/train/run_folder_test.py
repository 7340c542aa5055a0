import collections
import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

import data
from keras_autolabel import AutoLabelModel
from tests.conftest import Dimming, linear_network
from train import run_folder, training
from train.settings import Settings

SETTINGS = Settings(epochs=3, seed=4)


def _contents(folder) -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def killed(tmp_path):
    """A run that left a checkpoint, and no figures."""
    run_folder.open_run(str(tmp_path), SETTINGS, overwrite=False)
    tf.train.CheckpointManager(
        tf.train.Checkpoint(), str(tmp_path / "checkpoints"), max_to_keep=1
    ).save()
    (tmp_path / "history.csv").write_text("epoch,loss\n0,2.5\n", "utf-8")
    return tmp_path


def test_new_folder_is_made_and_keeps_the_settings(tmp_path):
    folder = tmp_path / "runs" / "one"
    run_folder.open_run(str(folder), SETTINGS, overwrite=False)
    assert json.loads((folder / "settings.json").read_text("utf-8")) == dataclasses.asdict(SETTINGS)
    assert len(_contents(folder)) == 1


def test_empty_folder_is_taken(tmp_path):
    run_folder.open_run(str(tmp_path), SETTINGS, overwrite=False)
    assert list(_contents(tmp_path)) == ["settings.json"]


def test_killed_run_with_the_same_settings_is_kept(killed):
    before = _contents(killed)
    run_folder.open_run(str(killed), SETTINGS, overwrite=False)
    assert _contents(killed) == before and "history.csv" in before


@pytest.mark.parametrize(
    ("settings", "finished", "what"),
    [
        (dataclasses.replace(SETTINGS, epochs=4), False, "a run with other settings"),
        (SETTINGS, True, "a finished run"),
        (dataclasses.replace(SETTINGS, epochs=4), True, "a finished run"),
    ],
)
def test_another_run_is_refused_until_overwrite(killed, settings, finished, what):
    if finished:
        (killed / "metrics.json").write_text("{}", "utf-8")
    before = _contents(killed)
    with pytest.raises(ValueError, match=f"already holds {what}.*--output_dir.*--overwrite"):
        run_folder.open_run(str(killed), settings, overwrite=False)
    assert _contents(killed) == before
    run_folder.open_run(str(killed), settings, overwrite=True)
    assert list(_contents(killed)) == ["settings.json"]
    assert json.loads(_contents(killed)["settings.json"])["epochs"] == settings.epochs


def test_a_run_without_a_finished_epoch_is_taken_over(tmp_path):
    run_folder.open_run(str(tmp_path), SETTINGS, overwrite=False)
    (tmp_path / "history.csv").write_text("", "utf-8")
    corrected = dataclasses.replace(SETTINGS, learning_rate=0.01)
    run_folder.open_run(str(tmp_path), corrected, overwrite=False)
    assert list(_contents(tmp_path)) == ["settings.json"]
    assert json.loads(_contents(tmp_path)["settings.json"])["learning_rate"] == 0.01


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("thesis.tex", "mine"),
        ("settings.json", "mine"),
        ("settings.json", "[1, 2]"),
        ("settings.json", '{"editor.fontSize": 12}'),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_run_is_never_deleted(tmp_path, name, content, overwrite):
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(ValueError, match="holds no run; name another --output_dir"):
        run_folder.open_run(str(tmp_path), SETTINGS, overwrite=overwrite)
    assert _contents(tmp_path) == {name: content}


def test_folder_that_cannot_be_written_is_called_that_and_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("", "utf-8")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OSError, match=f"{path} is not writable: "):
            run_folder.check_writable(str(path))
    run_folder.check_writable(str(tmp_path / "new" / "run"))
    assert os.listdir(tmp_path) == ["file"]


def test_space_for_eight_copies_of_the_network(tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "free")
    # 32 bytes for each of 2**20 parameters, and 20 MiB beside them.
    for free, enough in ((52 * 2**20, True), (52 * 2**20 - 1, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage(free))
        if enough:
            run_folder.check_space(str(tmp_path), 2**20)
        else:
            with pytest.raises(OSError, match="too full: the run needs about 52 MiB, 51 MiB"):
                run_folder.check_space(str(tmp_path), 2**20)


def test_full_disk_is_found_before_training(tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**20))
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("training has begun"))
    splits = data.load("digits", train_examples=100)
    settings = Settings(augmentation="none", labels="one_hot", batch_size=50)
    finished = tmp_path / "finished"
    run_folder.open_run(str(finished), settings, overwrite=False)
    (finished / "metrics.json").write_text("{}", "utf-8")
    before = _contents(finished)
    for folder in (tmp_path / "new" / "run", finished):
        with pytest.raises(OSError, match="too full"):
            training.run(settings, splits, str(folder), overwrite=True)
    # What is there is not given up for what would not fit, and nothing new is begun.
    assert _contents(finished) == before and not (tmp_path / "new").exists()


@pytest.mark.parametrize("done", [0, 1, 2])
def test_history_drops_the_epochs_that_no_checkpoint_has(tmp_path, done):
    folder = str(tmp_path)
    history = run_folder.History(folder, 0)
    for epoch in range(2):
        history.on_epoch_end(epoch, {"loss": np.float32(2.5) - epoch, "accuracy": 1 / 3})
    rows = [{"epoch": e, "accuracy": 1 / 3, "loss": 2.5 - e} for e in range(3)]
    assert run_folder.read_history(folder) == rows[:2]
    before = (tmp_path / "history.csv").read_text("utf-8")
    assert before.splitlines()[0] == "epoch,accuracy,loss"
    again = run_folder.History(folder, done)
    for epoch in range(done, 3):
        again.on_epoch_end(epoch, {"loss": 2.5 - epoch, "accuracy": 1 / 3})
    assert run_folder.read_history(folder) == rows
    assert (tmp_path / "history.csv").read_text("utf-8").startswith(before)
    assert os.listdir(tmp_path) == ["history.csv"]


def test_files_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "metrics.json"
    run_folder.write_json(str(path), {"figures": [1, 2.5], "name": "é"})
    with pytest.raises(TypeError):
        run_folder.write_json(str(path), {"first": 1, "no JSON": object()})
    assert json.loads(path.read_text("utf-8")) == {"figures": [1, 2.5], "name": "é"}
    run_folder.write_json(str(path), {})
    assert os.listdir(tmp_path) == ["metrics.json"]


@pytest.mark.parametrize("text", ["{", "[]", '{"theme": "dark"}', '{"dataset": "digits"}'])
def test_settings_of_other_programs_are_none(tmp_path, text):
    (tmp_path / "settings.json").write_text(text, "utf-8")
    assert run_folder.settings_of_run(str(tmp_path)) is None
    assert run_folder.settings_of_run(str(tmp_path / "model.keras")) is None


def test_table_is_put_together_from_its_columns():
    table = np.arange(12.0).reshape(2, 3, 2)
    rows = [
        {f"label_confidence_{i}_{j}": table[epoch, i, j] for j in range(2) for i in range(3)}
        | {"loss": 1.0}
        for epoch in range(2)
    ]
    np.testing.assert_array_equal(run_folder.table_in(rows, "label_confidence", (3, 2)), table)


def _model() -> AutoLabelModel:
    model = AutoLabelModel(linear_network((8, 8, 1), 10), Dimming(), num_classes=10)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9))
    model.build([None, 8, 8, 1])
    return model


def test_checkpoint_restores_weights_labels_momentum_and_epoch(tmp_path, digits):
    images, labels = (part[:64] for part in digits)
    model = _model()
    assert run_folder.Checkpoints(model, str(tmp_path)).restore() == 0
    checkpoints = run_folder.Checkpoints(model, str(tmp_path))
    model.label_policy.confidence.assign([0.25, 0.5, 0.75])
    options = {"batch_size": 16, "shuffle": False, "verbose": 0}
    model.fit(images, labels, epochs=2, callbacks=[checkpoints], **options)

    other = _model()
    assert run_folder.Checkpoints(other, str(tmp_path)).restore() == 2
    np.testing.assert_array_equal(other.label_policy.confidence, [0.25, 0.5, 0.75])
    # One more step of each is the same only if momentum and step counter are.
    for one in (model, other):
        one.fit(images, labels, epochs=3, initial_epoch=2, **options)
    assert int(other.optimizer.iterations) == 12
    for expected, actual in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_one_checkpoint_is_kept_and_none_of_a_loss_that_is_not_finite(tmp_path):
    model = _model()
    checkpoints = run_folder.Checkpoints(model, str(tmp_path))
    checkpoints.on_epoch_end(0, {"loss": 1.0})
    checkpoints.on_epoch_end(1, {"loss": 0.5})
    weights = model.get_weights()
    model.network.set_weights([np.full(w.shape, np.nan) for w in model.network.get_weights()])
    checkpoints.on_epoch_end(2, {"loss": float("nan")})
    assert len(list((tmp_path / "checkpoints").glob("*.index"))) == 1
    restored = _model()
    assert run_folder.Checkpoints(restored, str(tmp_path)).restore() == 2
    for expected, actual in zip(weights, restored.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)
