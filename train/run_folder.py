"""The folder of a run: refused if it is another run's, continued if the run was killed."""

import contextlib
import csv
import dataclasses
import functools
import glob
import json
import math
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from tensorflow import keras

from keras_autolabel.checks import divergence_of
from keras_autolabel.distribution import (
    Rows,
    function_of_chief,
    functions_of_rows,
    is_chief,
    is_of_workers,
    variables_apart,
)
from train.reasons import reason_of
from train.settings import FIELDS, Settings, is_allowed

SETTINGS, METRICS, HISTORY = "settings.json", "metrics.json", "history.csv"
CHECKPOINTS = "checkpoints"
DIVERGED = "Training has diverged; lower --learning_rate."


def open_run(folder: str, settings: Settings, *, overwrite: bool) -> None:
    """Claims a folder for a run.

    A folder that holds the same settings and no figures yet belongs to a run that was killed: it
    is kept, and training goes on where it was. One of other settings that no epoch was finished
    of has nothing to lose: it is taken over.

    Args:
        folder: The folder, made if need be.
        settings: The settings of the run.
        overwrite: Whether to delete another run that is there.

    Raises:
        ValueError: If another or a finished run is there, or anything that is no run.
        OSError: If the folder cannot be written.
    """
    mine = dataclasses.asdict(settings)
    if os.path.isdir(folder) and os.listdir(folder):
        theirs = read_settings(folder)
        if theirs is None:
            raise ValueError(f"{folder} is not empty and holds no run; name another --output_dir.")
        finished = os.path.exists(os.path.join(folder, METRICS))
        begun = finished or last_checkpoint(folder)
        if overwrite or (theirs != mine and not begun):
            shutil.rmtree(folder)
        elif finished or theirs != mine:
            what = "a finished run" if finished else "a run with other settings"
            if theirs != mine:
                what += f" ({_difference(theirs, mine)})"
            raise ValueError(
                f"{folder} already holds {what}; name another --output_dir, or replace it with "
                "--overwrite."
            )
    os.makedirs(folder, exist_ok=True)
    write_json(os.path.join(folder, SETTINGS), mine)


def _difference(theirs: dict, mine: dict) -> str:
    """What settings differ in, as flags: theirs, and mine."""
    names = [name for name in {**theirs, **mine} if theirs.get(name) != mine.get(name)]
    return ", ".join(f"--{name}={theirs.get(name)} there, {mine.get(name)} here" for name in names)


def check_writable(folder: str) -> None:
    """Refuses a folder that cannot be written, and leaves nothing there.

    Args:
        folder: The folder, which need not be there yet.

    Raises:
        OSError: If nothing can be made in it; says so.
    """
    try:
        with tempfile.TemporaryDirectory(dir=_nearest(folder)):
            pass
    except OSError as error:
        raise OSError(f"{folder} is not writable: {error.strerror}.") from error


def check_space(folder: str, parameters: int) -> None:
    """Refuses to start where the results would not fit.

    Args:
        folder: The folder of the run, which need not be there yet.
        parameters: Parameters of the network.

    Raises:
        OSError: If the disk is too full.
    """
    # Two checkpoints with momentum, a Keras file and a SavedModel, of 4 bytes a parameter.
    needed = 8 * 4 * parameters + 20 * 2**20
    free = shutil.disk_usage(_nearest(folder)).free
    if free < needed:
        raise OSError(
            f"The disk of {folder} is too full: the run needs about {needed // 2**20} MiB, "
            f"{free // 2**20} MiB are free."
        )


def _nearest(folder: str) -> str:
    """The folder, or what is there of those around it."""
    there = os.path.abspath(folder)
    while not os.path.exists(there):
        there = os.path.dirname(there)
    return there


def last_checkpoint(folder: str) -> str | None:
    """The newest checkpoint of a run that is whole; None where there is none.

    A damaged one is named, and the one before it taken. Files are looked at, not the list that is
    kept of them, which may be damaged too.

    Args:
        folder: The folder of the run.

    Returns:
        Its path, without an ending.
    """
    pattern = os.path.join(glob.escape(folder), CHECKPOINTS, "ckpt-*.index")
    paths = [path.removesuffix(".index") for path in glob.glob(pattern)]
    numbered = [path for path in paths if path.rpartition("-")[2].isdigit()]
    for path in sorted(numbered, key=_number_of, reverse=True):
        try:
            reader = tf.train.load_checkpoint(path)
            for name in reader.get_variable_to_shape_map():
                reader.get_tensor(name)
        # The reader raises whatever it makes of an error: IndexError for a file that is too short.
        except Exception as error:
            print(f"{path} is damaged, and skipped: {reason_of(error)}")
        else:
            return path
    return None


def _numbers_in(variables: Sequence) -> int:
    return sum(variable.shape.num_elements() for variable in variables)


def _number_of(checkpoint: str) -> int:
    return int(checkpoint.rpartition("-")[2])


def read_settings(folder: str) -> dict | None:
    """The settings of the run in a folder; None where there is no run."""
    try:
        with open(os.path.join(folder, SETTINGS), encoding="utf-8") as file:
            settings = json.load(file)
    # What is nested too deeply is no file of ours, either.
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    # Other programs have a settings.json, too.
    ours = isinstance(settings, dict) and {"dataset", "augmentation", "labels"} <= set(settings)
    return settings if ours else None


def settings_of_run(path: str) -> Settings | None:
    """The settings of the run that a model comes from.

    Args:
        path: The folder of the run, or a model in it.

    Returns:
        What ``settings.json`` says, with today's default for what a run did not know yet; None
        where there is none, or that of another program.

    Raises:
        ValueError: If a value in it is none that its flag would take.
    """
    for folder in (path, os.path.dirname(path.rstrip("/"))):
        content = read_settings(folder)
        if content is not None:
            for name in FIELDS.keys() & content.keys():
                if not is_allowed(name, content[name]):
                    raise ValueError(
                        f"{os.path.join(folder, SETTINGS)} is damaged, or of another version: "
                        f"--{name} cannot be {json.dumps(content[name])[:40]}."
                    )
            return Settings(**{name: content[name] for name in FIELDS.keys() & content.keys()})
    return None


class Terminated(Exception):
    """Training was asked to end, has written a checkpoint, and can go on from there."""


class Checkpoints(keras.callbacks.Callback):
    """Keeps all that training needs to go on after a kill, inside an epoch, too.

    These are weights, labels, optimizer, the epoch, its steps that are done, and what the metrics
    have counted in them. Nothing is kept of a network that has diverged, which is an error at once.
    It must stand behind ``AutoLabel``, so that the labels it keeps are those of the next epoch.

    What replicas keep apart, the moving statistics of BatchNorm and what metrics have counted, is
    kept of each. Of several workers, all of which must have this callback, the first decides and
    writes.

    Args:
        model: A compiled model.
        folder: The folder of the run.
        keep: How many checkpoints stay: with more than one, a damaged one can be done without.
        minutes: After how many minutes an epoch has a checkpoint before its end.
        asked_to_end: Asked behind each step; True ends training as SIGTERM does.
    """

    def __init__(
        self,
        model: keras.Model,
        folder: str,
        *,
        keep: int = 2,
        minutes: float = math.inf,
        asked_to_end: Callable[[], bool] = lambda: False,
    ):
        super().__init__()
        self.folder, self.minutes, self.asked_to_end = folder, minutes, asked_to_end
        self.keep = keep
        self.terminated, self.last = False, time.monotonic()
        self.steps_apart, self.steps_to_wait, self.asked_at = 1, 1, self.last
        self.epoch, self.step = (tf.Variable(0, dtype=tf.int64) for _ in range(2))
        # How many numbers metrics keep is known when they have seen a batch.
        self.counted = tf.Variable(tf.zeros([0], tf.float64), shape=[None])
        # A row for each replica, of what they keep apart.
        self.apart = tf.Variable(tf.zeros([0, 0], tf.float64), shape=[None, None])
        self.strategy = model.distribute_strategy
        self.statistics = variables_apart(self.strategy, model.weights)
        self.rows_of_statistics = functions_of_rows(self.strategy, self.statistics)
        self.of_chief = function_of_chief(self.strategy)
        with self.strategy.scope():
            model.optimizer.build(model.trainable_variables)
        self.checkpoint = tf.train.Checkpoint(
            model=model,
            optimizer=model.optimizer,
            epoch=self.epoch,
            step=self.step,
            counted=self.counted,
            apart=self.apart,
        )
        self.written_to = os.path.join(folder, CHECKPOINTS)
        if not is_chief(self.strategy):
            # All workers take part in what is read of variables that they keep apart.
            self.elsewhere = tempfile.TemporaryDirectory()
            self.written_to = self.elsewhere.name

    def restore(self) -> int:
        """Restores the last whole checkpoint, if any; returns the number of epochs done.

        ``step`` says how many steps of the next one are done, too.
        """
        path = last_checkpoint(self.folder) if is_chief(self.strategy) else None
        # One machine may see later than another what is in a folder that they share.
        number = self.of_chief(0 if path is None else _number_of(path))
        if number:
            self.checkpoint.restore(os.path.join(self.folder, CHECKPOINTS, f"ckpt-{number}"))
            if self._are_as_many():
                rows = self.apart[:, : _numbers_in(self.statistics)]
                self.rows_of_statistics.give_back(rows)
        return int(self.epoch)

    @contextlib.contextmanager
    def on_sigterm(self) -> Iterator[None]:
        """Inside, SIGTERM ends training behind the step that is under way, with a checkpoint."""

        def terminate(*_):
            self.terminated = True

        # Only the main thread has signals.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, terminate)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Gives the metrics, which Keras has just reset, what they had counted before a kill."""
        self.first_step = int(self.step)
        self.now = epoch
        if not self.first_step:
            return
        sizes = [int(np.prod(v.shape)) for v in self._metric_variables()]
        parts = np.split(self.counted.numpy(), np.cumsum(sizes)[:-1])
        for variable, part in zip(self._metric_variables(), parts, strict=True):
            variable.assign(tf.cast(part.reshape(variable.shape), variable.dtype))
        if self._are_as_many():
            self._rows_of_metrics.give_back(self.apart[:, _numbers_in(self.statistics) :])

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Writes a checkpoint if it is time, or the end.

        Raises:
            ValueError: If the loss or, where it matters, a weight is not finite.
        """
        step, loss = self.first_step + batch + 1, (logs or {}).get("loss", 0.0)
        ends = batch + 1 == self.params["steps"]
        due = not ends and self._is_time()
        # Weights are looked at before they are kept, or measured on the hold-out.
        what = divergence_of(self.model, loss) if ends or due or not np.isfinite(loss) else ""
        if what:
            raise ValueError(f"{DIVERGED} Epoch {self.now + 1}, step {step}: {what}.")
        if due:
            values = [np.ravel(tf.convert_to_tensor(v)) for v in self._metric_variables()]
            self.counted.assign(np.concatenate(values).astype(np.float64))
            self._save(self.now, step)

    def _is_time(self) -> bool:
        """Whether it is late, or training shall end; all workers do what the chief says.

        Workers wait for each other to hear it, and so ask about once a second, as many steps apart
        as the chief has said before.
        """
        self.steps_to_wait -= 1
        if self.steps_to_wait > 0:
            return False
        now = time.monotonic()
        late = now - self.last > 60.0 * self.minutes
        asked = self.terminated or self.asked_to_end()
        pause = min(1.0, 60.0 * self.minutes) if is_of_workers(self.strategy) else 0.0
        steps = int(self.steps_apart * pause / max(now - self.asked_at, 1e-6))
        steps = max(1, min(steps, 2 * self.steps_apart))
        self.steps_apart, answer = divmod(self.of_chief(4 * steps + 2 * late + asked), 4)
        self.steps_to_wait, self.asked_at = self.steps_apart, now
        late, asked = divmod(answer, 2)
        self.terminated = bool(asked)
        return bool(late or asked)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes a checkpoint."""
        self._save(epoch + 1, 0)

    def _save(self, epoch: int, step: int) -> None:
        """Whole or not at all."""
        self.epoch.assign(epoch)
        self.step.assign(step)
        rows = [self.rows_of_statistics.gather()]
        if step:
            rows.append(self._rows_of_metrics.gather())
        self.apart.assign(tf.concat(rows, axis=1))
        os.makedirs(self.written_to, exist_ok=True)
        self.checkpoint.save(os.path.join(self.written_to, "ckpt"))
        self._sweep()
        self.last = time.monotonic()
        if self.terminated:
            raise Terminated(
                f"terminated after {epoch} epochs and {step} steps; the same command goes on."
            )

    def _sweep(self) -> None:
        """Removes checkpoints that are not kept any more, and parts of some that a kill left."""
        folder = self.written_to
        for half in glob.glob("checkpoint.tmp*", root_dir=folder):
            os.remove(os.path.join(folder, half))
        # Under a strategy it is a variable of every replica.
        last = int(tf.convert_to_tensor(self.checkpoint.save_counter))
        found = {name: re.match(r"ckpt-(\d+)[._]", name) for name in os.listdir(folder)}
        numbers = {name: int(match[1]) for name, match in found.items() if match}
        whole = sorted(n for name, n in numbers.items() if name.endswith(".index") and n <= last)
        # An index goes before its data, without which it would be a damaged one.
        for name in sorted(numbers, reverse=True):
            if name.endswith("_temp"):
                shutil.rmtree(os.path.join(folder, name))
            elif numbers[name] not in whole[-self.keep :]:
                os.remove(os.path.join(folder, name))

    def _are_as_many(self) -> bool:
        """Whether the checkpoint is of as many replicas as there are now."""
        return len(self.apart.numpy()) == self.strategy.num_replicas_in_sync

    @functools.cached_property
    def _rows_of_metrics(self) -> Rows:
        variables = variables_apart(self.strategy, self._metric_variables())
        return functions_of_rows(self.strategy, variables)

    def _metric_variables(self) -> list:
        return [variable for metric in self.model.metrics for variable in metric.variables]


class History(keras.callbacks.Callback):
    """Keeps ``history.csv``: a row an epoch, of what callbacks that stand before it logged.

    Args:
        folder: The folder of the run.
        done: Epochs that the checkpoint has; rows behind them are dropped, for these epochs will
            be trained again.
    """

    def __init__(self, folder: str, done: int):
        super().__init__()
        self.folder = folder
        self.rows = read_history(folder)[:done]

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the row of the epoch."""
        logged = {name: float(value) for name, value in sorted((logs or {}).items())}
        self.rows.append({"epoch": epoch, **logged})
        write_csv(os.path.join(self.folder, HISTORY), self.rows)


def read_history(folder: str) -> list[dict[str, float]]:
    """The rows of ``history.csv``, one an epoch; none where there is no such file.

    Raises:
        ValueError: If it is damaged.
    """
    path = os.path.join(folder, HISTORY)
    if not os.path.exists(path):
        return []
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        return [
            {name: float(value) for name, value in row.items()} | {"epoch": int(row["epoch"])}
            for row in rows
        ]
    # A row that is too long or too short has a list or nothing for a number.
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise ValueError(f"{path} is damaged: {reason_of(error)}") from error


def table_in(rows: list[dict[str, float]], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """What ``AutoLabel`` logged under a name, out of ``history.csv``.

    Args:
        rows: What ``read_history`` returns.
        name: For instance ``"label_confidence"``.
        shape: Shape of the label table.

    Returns:
        float array [epochs, *shape].

    Example:
        >>> table_in([{"holdout_ece_0": 0.5, "holdout_ece_1": 0.25}], "holdout_ece", (2,)).tolist()
        [[0.5, 0.25]]
    """
    keys = ["_".join([name, *map(str, index)]) for index in np.ndindex(*shape)]
    return np.array([[row[key] for key in keys] for row in rows]).reshape(len(rows), *shape)


def write_csv(path: str, rows: Sequence[dict]) -> None:
    """Writes a table whole or not at all.

    Args:
        path: The file.
        rows: Name of the column -> value; the first row has all columns.
    """
    temporary = f"{path}.tmp"
    with open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


def write_json(path: str, content: dict) -> None:
    """Writes a JSON file whole or not at all.

    Args:
        path: The file.
        content: What it holds.
    """
    temporary = f"{path}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
    os.replace(temporary, path)


def read_json(path: str) -> dict:
    """What a JSON file holds; nothing where there is none.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {reason_of(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no {{...}}")
    return content
