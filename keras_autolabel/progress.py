"""What an epoch logs of its labels: all of it into history and TensorBoard, a figure on screen."""

import functools
import os
import warnings
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow import keras

# The figures of single buckets, and of the hold-out, begin with these.
DETAILS = ("label_confidence_", "holdout_")
# Side of a bucket in TensorBoard's picture of the label table, in pixels.
CELL = 32


class LabelLogs(keras.callbacks.Callback):
    """Keeps the figures of every bucket off Keras' progress line, and in TensorBoard together.

    ``fit`` puts it behind History and before every ``keras.callbacks.TensorBoard``, beside whose
    runs ``train`` and ``validation`` it writes one more, ``labels``: the figures as scalars
    ``labels/<name>``, and the table as the picture ``labels/table``, see ``table_picture``.

    Args:
        forgotten: Whether a label table has no callback that updates it.
        log_dirs: The folders of TensorBoard.
    """

    def __init__(self, *, forgotten: bool, log_dirs: Sequence[str] = ()) -> None:
        super().__init__()
        self.forgotten = forgotten
        self.log_dirs = log_dirs

    @classmethod
    def around(
        cls, callbacks: Sequence[keras.callbacks.Callback], *, learns: bool
    ) -> list[keras.callbacks.Callback]:
        """The callbacks of ``fit`` in an order that is right, where labels are there to be learned.

        These are those that update labels, all others in their order, Keras' ``History`` if there
        is none yet, a ``LabelLogs``, and those of TensorBoard.
        """
        first, others, boards = [], [], []
        for callback in callbacks:
            if getattr(callback, "updates_labels", False):
                first.append(callback)
            elif isinstance(callback, keras.callbacks.TensorBoard):
                boards.append(callback)
            else:
                others.append(callback)
        if not any(isinstance(callback, keras.callbacks.History) for callback in others):
            others.append(keras.callbacks.History())
        logs = cls(forgotten=learns and not first, log_dirs=[board.log_dir for board in boards])
        return [*first, *others, logs, *boards]

    @staticmethod
    def check_order(callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Warns of callbacks of a ``CallbackList`` that stand before one that updates labels."""
        updates = [getattr(callback, "updates_labels", False) for callback in callbacks]
        last = max((place for place, update in enumerate(updates) if update), default=0)
        before = [type(callbacks[n]).__name__ for n in range(last) if not updates[n]]
        if before:
            warnings.warn(
                f"{', '.join(before)} would keep labels that are one update old: put "
                f"{type(callbacks[last]).__name__} first in the CallbackList, or give fit a list.",
                stacklevel=3,
            )

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Takes out what the history has by now, and warns once of labels that nothing updates."""
        names = [name for name in logs or () if name.startswith(DETAILS)]
        details = {name: logs.pop(name) for name in names}
        if details:
            self._write(details, epoch)
        if self.forgotten:
            self.forgotten = False
            warnings.warn(
                "The labels of this model stay where they started: give fit the callback that "
                "learns them, callbacks=[keras_autolabel.AutoLabel(holdout)], or the model a "
                "label_policy that is fixed.",
                stacklevel=2,
            )

    def _write(self, details: dict[str, float], epoch: int) -> None:
        for writer in self._writers:
            with writer.as_default(epoch):
                for name, value in details.items():
                    tf.summary.scalar(f"labels/{name}", value)
                table = getattr(self.model.label_policy, "confidence", None)
                if table is not None:
                    table = tf.convert_to_tensor(table).numpy()
                    picture = table_picture(table, self.model.num_classes)
                    tf.summary.image("labels/table", picture[np.newaxis])
            writer.flush()

    @functools.cached_property
    def _writers(self) -> list[tf.summary.SummaryWriter]:
        # Each makes its file at once: none for labels that nothing logs.
        folders = [os.path.join(log_dir, "labels") for log_dir in self.log_dirs]
        return [tf.summary.create_file_writer(folder) for folder in folders]


def table_picture(table: np.ndarray, num_classes: int) -> np.ndarray:
    """A label table in grey: white is a label of 1, black one of 1/K, which knows nothing.

    It has a row for each depth, buckets from left to right: uint8 [32·D, 32·N, 1].

    Example:
        >>> table_picture(np.array([1.0, 0.55, 0.1]), num_classes=10)[0, ::32, 0].tolist()
        [255, 128, 0]
    """
    share = (np.atleast_2d(table) * num_classes - 1.0) / (num_classes - 1.0)
    grey = np.round(255.0 * np.clip(share, 0.0, 1.0)).astype(np.uint8)
    return np.kron(grey, np.ones([CELL, CELL], np.uint8))[..., np.newaxis]
