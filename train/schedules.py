"""Learning rates as they are published: a linear warm-up, then steps down.

The rates that fall in steps, and those that fall along a cosine, are Keras' own.
"""

from collections.abc import Sequence

import tensorflow as tf
from tensorflow import keras


@keras.utils.register_keras_serializable(package="keras_autolabel.train")
class LinearWarmup(keras.optimizers.schedules.LearningRateSchedule):
    """Another schedule, times min(step / warmup_steps, 1).

    Args:
        schedule: The rates behind the warm-up.
        warmup_steps: Length of the linear rise from 0, at least 1.

    Example:

        >>> constant = keras.optimizers.schedules.PiecewiseConstantDecay([9], [0.5, 0.25])
        >>> [float(LinearWarmup(constant, 2)(step)) for step in (0, 1, 2, 9, 10)]
        [0.0, 0.25, 0.5, 0.5, 0.25]
    """

    def __init__(
        self, schedule: keras.optimizers.schedules.LearningRateSchedule, warmup_steps: int
    ):
        super().__init__()
        self.schedule = schedule
        self.warmup_steps = warmup_steps

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Returns the learning rate of the update that follows ``step`` updates."""
        rise = tf.minimum(tf.cast(step, tf.float32) / self.warmup_steps, 1.0)
        return rise * tf.cast(self.schedule(step), tf.float32)

    def get_config(self) -> dict:
        """Returns the arguments."""
        schedule = keras.optimizers.schedules.serialize(self.schedule)
        return {"schedule": schedule, "warmup_steps": self.warmup_steps}

    @classmethod
    def from_config(cls, config: dict) -> "LinearWarmup":
        """Makes the schedule that ``get_config`` describes."""
        schedule = keras.optimizers.schedules.deserialize(config["schedule"])
        return cls(schedule, config["warmup_steps"])


def cifar_schedule(*, batch_size: int, steps_per_epoch: int, epochs: int = 200) -> LinearWarmup:
    """Builds the schedule of wide residual networks on CIFAR in uncertainty-baselines.

    The rate is 0.1 per 128 examples of the batch, after one epoch of warm-up, and a fifth of the
    former one from epochs 60, 120 and 160 of 200 on.

    Args:
        batch_size: Examples of one update, over all replicas.
        steps_per_epoch: Updates of one epoch.
        epochs: Length of the training; the milestones move in proportion, rounded down.

    Raises:
        ValueError: If the training is too short for one epoch between warm-up and first decay.
    """
    milestones = [epoch * epochs // 200 for epoch in (60, 120, 160)]
    return _steps_down(0.1 * batch_size / 128, 0.2, 1, milestones, steps_per_epoch)


def imagenet_schedule(*, batch_size: int, steps_per_epoch: int, epochs: int = 90) -> LinearWarmup:
    """Builds the schedule of ResNet-50 on ImageNet in uncertainty-baselines.

    The rate is 0.1 per 256 examples of the batch, after five epochs of warm-up, and a tenth of the
    former one from epochs 30, 60 and 80 of 90 on. In a training of another length the warm-up
    keeps its five epochs. Arguments, result and errors are those of ``cifar_schedule``.
    """
    milestones = [epoch * epochs // 90 for epoch in (30, 60, 80)]
    return _steps_down(0.1 * batch_size / 256, 0.1, 5, milestones, steps_per_epoch)


def _steps_down(
    rate: float, factor: float, warmup: int, milestones: Sequence[int], steps_per_epoch: int
) -> LinearWarmup:
    epochs = [warmup, *milestones]
    if epochs != sorted(set(epochs)):
        raise ValueError(
            f"the rate would fall from epochs {', '.join(map(str, milestones))} on, after a "
            f"warm-up of {warmup}, and these must rise."
        )
    # Keras' steps belong to the epoch before: an epoch begins one step later.
    boundaries = [epoch * steps_per_epoch - 1 for epoch in milestones]
    rates = [rate * factor**decays for decays in range(len(milestones) + 1)]
    steps = keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, rates)
    return LinearWarmup(steps, warmup * steps_per_epoch)
