import collections
import dataclasses
import json
import math
import os
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

import data
from keras_autolabel import AutoLabel, AutoLabelModel
from keras_autolabel.checks import names_of_non_finite
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


@pytest.mark.parametrize("name", [".", "runs/one"])
def test_empty_or_new_folder_keeps_the_settings(tmp_path, name):
    folder = tmp_path / name
    run_folder.open_run(str(folder), SETTINGS, overwrite=False)
    assert json.loads((folder / "settings.json").read_text("utf-8")) == dataclasses.asdict(SETTINGS)
    assert list(_contents(folder)) == ["settings.json"]
    # No epoch is finished: other settings take it over.
    (folder / "history.csv").write_text("", "utf-8")
    corrected = dataclasses.replace(SETTINGS, learning_rate=0.01)
    run_folder.open_run(str(folder), corrected, overwrite=False)
    assert list(_contents(folder)) == ["settings.json"]
    assert json.loads(_contents(folder)["settings.json"])["learning_rate"] == 0.01


def test_killed_run_with_the_same_settings_is_kept(killed):
    before = _contents(killed)
    run_folder.open_run(str(killed), SETTINGS, overwrite=False)
    assert _contents(killed) == before and "history.csv" in before


@pytest.mark.parametrize(
    ("settings", "finished", "what"),
    [
        (
            dataclasses.replace(SETTINGS, epochs=4, data_dir="here"),
            False,
            r".* settings \(--data_dir=None there, here here, --epochs=3 there, 4 here\)",
        ),
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


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("thesis.tex", "mine"),
        ("settings.json", "mine"),
        ("settings.json", "[1, 2]"),
        ("settings.json", '{"editor.fontSize": 12}'),
        ("settings.json", '{"dataset": "digits"}'),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_run_is_never_deleted(tmp_path, name, content, overwrite):
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(ValueError, match=f"{tmp_path} .*holds no run; .*--output_dir"):
        run_folder.open_run(str(tmp_path), SETTINGS, overwrite=overwrite)
    assert _contents(tmp_path) == {name: content}
    for path in (tmp_path, tmp_path / "model.keras"):
        assert run_folder.settings_of_run(str(path)) is None


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("epochs", [1, 3], [0, 3.0, "3", None, True, [3]]),
        ("learning_rate", [1, 0.5], [-0.1, math.inf, True]),
        ("severity", [10.0], [10.1, math.nan]),
        ("data_dir", ["here", None], [7]),
        ("augmentation", ["mixup"], ["mixdown", None]),
    ],
)
def test_settings_that_no_flag_would_take_are_refused(tmp_path, name, right, wrong):
    def read(value):
        content = {**dataclasses.asdict(SETTINGS), name: value}
        (tmp_path / "settings.json").write_text(json.dumps(content), "utf-8")
        return run_folder.settings_of_run(str(tmp_path))

    for value in right:
        assert getattr(read(value), name) == value
    for value in wrong:
        with pytest.raises(ValueError, match=f"{tmp_path}/settings.json is damaged.* --{name} can"):
            read(value)


@pytest.mark.parametrize(
    "content", [b"epoch,loss\n0,2.5,3\n", b"epoch,loss\n0\n", b"loss\n2.5\n", b"epoch\n\xff\n"]
)
def test_a_damaged_history_is_named(tmp_path, content):
    (tmp_path / "history.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"{tmp_path}/history.csv is damaged: ") as told:
        run_folder.read_history(str(tmp_path))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("content", ["{", "[1]", "[" * 100_000])
def test_a_damaged_json_file_is_named(tmp_path, content):
    (tmp_path / "job.json").write_text(content, "utf-8")
    with pytest.raises(ValueError, match=f"{tmp_path}/job.json is damaged: "):
        run_folder.read_json(str(tmp_path / "job.json"))
    assert run_folder.read_json(str(tmp_path / "none.json")) == {}
    (tmp_path / "settings.json").write_text(content, "utf-8")
    assert run_folder.read_settings(str(tmp_path)) is None


def test_folder_that_cannot_be_written_is_called_that_and_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("", "utf-8")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OSError, match=f"{path} is not writable: "):
            run_folder.check_writable(str(path))
    run_folder.check_writable(str(tmp_path / "new" / "run"))
    assert os.listdir(tmp_path) == ["file"]


def test_full_disk_is_found_before_training_and_before_another_run_is_deleted(
    killed, tmp_path_factory, monkeypatch
):
    usage = collections.namedtuple("usage", "free")
    # 32 bytes for each of 78,042 parameters, and 20 MiB beside them.
    needed = 32 * 78_042 + 20 * 2**20
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(needed))
    run_folder.check_space(str(killed), 78_042)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(needed - 1))
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("training has begun"))
    splits, before = data.load("digits", train_examples=100), _contents(killed)
    settings = Settings(augmentation="none", labels="one_hot", batch_size=50)
    new = tmp_path_factory.mktemp("runs") / "new"
    for folder in (new / "run", killed):
        with pytest.raises(OSError, match=f"{folder} is too full: .* 22 MiB, 22 MiB"):
            training.run(settings, splits, str(folder), overwrite=True)
    assert _contents(killed) == before and not new.exists()


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


@pytest.mark.parametrize("keep", [1, 2])
def test_so_many_checkpoints_are_kept(tmp_path, keep):
    model = _model()
    checkpoints = run_folder.Checkpoints(model, str(tmp_path), keep=keep)
    for epoch in range(3):
        checkpoints.on_epoch_end(epoch)
    assert len(list((tmp_path / "checkpoints").glob("*.index"))) == keep
    assert run_folder.Checkpoints(_model(), str(tmp_path)).restore() == 3


class Poison(keras.callbacks.Callback):
    """Makes a weight no finite number behind a step; the machine is switched off at another."""

    def __init__(self, at: int, value: float, off: int | None = None):
        super().__init__()
        self.at, self.value, self.off = at, value, off

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.off:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.at:
            kernel, bias = self.model.network.get_weights()
            bias[3] = self.value
            self.model.network.set_weights([kernel, bias])


@pytest.mark.parametrize(
    ("value", "at", "minutes", "off", "where", "kept"),
    [
        # Of four steps the one behind it is the first whose loss shows it, and the first that the
        # machine would have to wait for ...
        (np.nan, 1, math.inf, None, "Epoch 1, step 3: the loss is not finite; 2 weights", 0),
        (np.inf, 1, math.inf, 2, "Epoch 1, step 3: the loss is not finite; 2 weights", 0),
        # ... and weights are looked at before they are kept, or measured on the hold-out.
        (np.inf, 1, 0.0, None, "Epoch 1, step 2: 1 weights", 1),
        (np.nan, 1, math.inf, 1, "Epoch 1, step 2: 1 weights", 0),
        (np.inf, 3, math.inf, None, "Epoch 1, step 4: 1 weights", 0),
    ],
)
def test_training_that_diverges_ends_at_once_and_no_checkpoint_has_it(
    tmp_path, digits, value, at, minutes, off, where, kept
):
    model, holdout = _model(), tuple(part[64:100] for part in digits)
    autolabel = AutoLabel(holdout)
    checkpoints = run_folder.Checkpoints(model, str(tmp_path), minutes=minutes)
    callbacks = [autolabel, Poison(at, value, off), checkpoints]
    images, labels = (part[:64] for part in digits)
    options = {"batch_size": 16, "shuffle": False, "verbose": 0, "callbacks": callbacks}
    with checkpoints.on_sigterm(), pytest.raises(ValueError, match=f"{where} .*not finite") as told:
        model.fit(images, labels, **options)
    assert "\n" not in str(told.value) and autolabel.history == []
    restored = _model()
    saved = list((tmp_path / "checkpoints").glob("*.index"))
    assert len(saved) == kept
    assert run_folder.Checkpoints(restored, str(tmp_path)).restore() == 0
    assert int(restored.draws) == kept and names_of_non_finite(restored.weights) == []


def test_workers_ask_each_other_once_a_second(monkeypatch, tmp_path):
    now, asked = [0.0], []
    monkeypatch.setattr(run_folder.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(run_folder, "is_of_workers", lambda strategy: True)
    checkpoints = run_folder.Checkpoints(
        _model(), str(tmp_path), asked_to_end=lambda: bool(asked.append(now[0]))
    )
    checkpoints.set_params({"steps": 100_000})
    checkpoints.on_epoch_begin(0)
    for step in range(1000):
        now[0] += 0.01 if step < 500 else 0.05
        checkpoints.on_train_batch_end(step, {"loss": 0.0})
    steps = 100.0 * np.array([0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64])
    # The pace is a whole number of steps.
    np.testing.assert_allclose(np.diff(asked[:8]), np.append(steps[1:], 100.0) / 100.0, atol=0.011)
    # Slower steps are noticed at the next question.
    assert max(np.diff(asked)) < 5.0 and np.diff(asked)[-2:] == pytest.approx([1.0, 1.0], abs=0.06)


def _damage(path, how: str) -> None:
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "missing":
        path.unlink()
    else:
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


def test_the_next_checkpoint_takes_away_what_a_kill_left(tmp_path):
    checkpoints = run_folder.Checkpoints(_model(), str(tmp_path))
    for epoch in range(3):
        checkpoints.on_epoch_end(epoch)
    folder, again = tmp_path / "checkpoints", run_folder.Checkpoints(_model(), str(tmp_path))
    assert again.restore() == 3
    # Killed before a checkpoint had its name, before the list had it, while that was written, and
    # while an old one went.
    (folder / "ckpt-3_temp").mkdir()
    (folder / "ckpt-3_temp" / "part-00000-of-00001.data-00000-of-00001").write_bytes(b"half")
    (folder / "ckpt-1.data-00000-of-00001").write_bytes(b"all")
    (folder / "checkpoint").write_text('model_checkpoint_path: "ckpt-2"', "utf-8")
    (folder / "checkpoint.tmp4fc11f56").write_text("model_check", "utf-8")
    (folder / "mine.index").write_text("stays", "utf-8")
    again.on_epoch_end(3)
    data = "data-00000-of-00001"
    checkpoints = {f"ckpt-{number}.{ending}" for number in (3, 4) for ending in (data, "index")}
    assert set(os.listdir(folder)) == {"checkpoint", "mine.index", *checkpoints}
    assert run_folder.Checkpoints(_model(), str(tmp_path)).restore() == 4


# Without its index there is no checkpoint.
@pytest.mark.parametrize(
    ("how", "ending"),
    [
        *(("truncated", "index"), ("flipped", "index"), ("empty", "index")),
        *(("truncated", "data-00000-of-00001"), ("empty", "data-00000-of-00001")),
        *(("missing", "data-00000-of-00001"), ("flipped", "data-00000-of-00001")),
    ],
)
def test_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, capsys, how, ending):
    model = _model()
    checkpoints = run_folder.Checkpoints(model, str(tmp_path))
    states = []
    for epoch in range(3):
        model.label_policy.confidence.assign([0.25, 0.5, 0.25 * (epoch + 1)])
        checkpoints.on_epoch_end(epoch, {"loss": 1.0})
        states.append(model.get_weights())
    _damage(tmp_path / "checkpoints" / f"ckpt-3.{ending}", how)
    # Of what is there a list is kept, which may be damaged too.
    (tmp_path / "checkpoints" / "checkpoint").write_bytes(b"\x00")
    other = _model()
    again = run_folder.Checkpoints(other, str(tmp_path))
    assert again.restore() == 2
    assert f"{tmp_path}/checkpoints/ckpt-3 is damaged" in capsys.readouterr().out
    for expected, actual in zip(states[1], other.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)
    # The next one takes the place of the damaged one.
    again.on_epoch_end(2, {"loss": 1.0})
    assert run_folder.Checkpoints(_model(), str(tmp_path)).restore() == 3
    for number in (2, 3):
        _damage(tmp_path / "checkpoints" / f"ckpt-{number}.data-00000-of-00001", "truncated")
    assert run_folder.Checkpoints(_model(), str(tmp_path)).restore() == 0
