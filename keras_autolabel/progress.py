"""What an epoch logs of its labels: all of it into the history, one figure onto the screen."""

import warnings
from collections.abc import Sequence

from tensorflow import keras

# The figures of single buckets, and of the hold-out, begin with these.
DETAILS = ("label_confidence_", "holdout_")


class LabelLogs(keras.callbacks.Callback):
    """Keeps the figures of every bucket off Keras' progress line; ``fit`` puts it behind History.

    Args:
        forgotten: Whether a label table has no callback that updates it.
    """

    def __init__(self, *, forgotten: bool) -> None:
        super().__init__()
        self.forgotten = forgotten

    @classmethod
    def around(
        cls, callbacks: Sequence[keras.callbacks.Callback], *, learns: bool
    ) -> list[keras.callbacks.Callback]:
        """The callbacks of ``fit`` in an order that is right.

        Args:
            callbacks: As the user gave them.
            learns: Whether the model's labels are there to be learned.

        Returns:
            Those that update labels, all others in their order, Keras' ``History`` if there is
            none yet, and a ``LabelLogs``.
        """
        updates = [getattr(callback, "updates_labels", False) for callback in callbacks]
        first = [c for c, is_first in zip(callbacks, updates, strict=True) if is_first]
        others = [c for c, is_first in zip(callbacks, updates, strict=True) if not is_first]
        if not any(isinstance(callback, keras.callbacks.History) for callback in others):
            others.append(keras.callbacks.History())
        return [*first, *others, cls(forgotten=learns and not first)]

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Drops what the history has by now, and warns once of labels that nothing updates."""
        for name in [name for name in logs or () if name.startswith(DETAILS)]:
            del logs[name]
        if self.forgotten:
            self.forgotten = False
            warnings.warn(
                "The labels of this model stay where they started: give fit the callback that "
                "learns them, callbacks=[keras_autolabel.AutoLabel(holdout)], or the model a "
                "label_policy that is fixed.",
                stacklevel=2,
            )
