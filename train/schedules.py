"""Learning rates that fall in steps, with a linear warm-up.

The cosine schedule with a warm-up is Keras' own:
``keras.optimizers.schedules.CosineDecay(0.0, decay_steps, warmup_target=..., warmup_steps=...)``.
"""

from collections.abc import Sequence

import tensorflow as tf
from tensorflow import keras


def step_decay_with_warmup(
    step: tf.Tensor | int,
    *,
    base_learning_rate: float,
    warmup_steps: int,
    decay_steps: Sequence[int],
    decay_factor: float,
) -> tf.Tensor:
    """Returns base_learning_rate * min(step / warmup_steps, 1) * decay_factor**(decays passed).

    Args:
        step: Number of updates already made, any integer dtype and shape.
        base_learning_rate: The rate after the warm-up.
        warmup_steps: Length of the linear rise from 0; 0 for none.
        decay_steps: The steps from which each further decay holds.
        decay_factor: What each decay multiplies by, in (0, 1].

    Returns:
        Float32 learning rates of the shape of ``step``.

    Example:

        >>> step_decay_with_warmup(
        ...     [0, 5, 10, 20], base_learning_rate=1.0, warmup_steps=10, decay_steps=[20],
        ...     decay_factor=0.5).numpy().tolist()
        [0.0, 0.5, 1.0, 0.5]
    """
    step = tf.convert_to_tensor(step)
    passed = step[..., tf.newaxis] >= tf.constant(decay_steps, step.dtype)
    decay = decay_factor ** tf.reduce_sum(tf.cast(passed, tf.float32), axis=-1)
    if warmup_steps == 0:
        return base_learning_rate * decay
    rise = tf.minimum(tf.cast(step, tf.float32) / warmup_steps, 1.0)
    return base_learning_rate * rise * decay


@keras.utils.register_keras_serializable(package="keras_autolabel.train")
class StepDecayWithWarmup(keras.optimizers.schedules.LearningRateSchedule):
    """``step_decay_with_warmup`` as a schedule for a Keras optimizer; the arguments are the same.

    Raises:
        ValueError: If the rate is not positive, the factor lies outside (0, 1], or the steps do not
            rise from the end of the warm-up on.
    """

    def __init__(
        self,
        *,
        base_learning_rate: float,
        warmup_steps: int,
        decay_steps: Sequence[int],
        decay_factor: float,
    ):
        super().__init__()
        if base_learning_rate <= 0.0:
            raise ValueError(
                "`base_learning_rate` must be positive. "
                f"Received: base_learning_rate={base_learning_rate}"
            )
        if not 0.0 < decay_factor <= 1.0:
            raise ValueError(
                f"`decay_factor` must lie in (0, 1]. Received: decay_factor={decay_factor}"
            )
        milestones = [warmup_steps, *decay_steps]
        if warmup_steps < 0 or milestones != sorted(set(milestones)):
            raise ValueError(
                "`decay_steps` must rise, and begin after the warm-up. "
                f"Received: warmup_steps={warmup_steps}, decay_steps={decay_steps}"
            )
        self.config = {
            "base_learning_rate": base_learning_rate,
            "warmup_steps": warmup_steps,
            "decay_steps": list(decay_steps),
            "decay_factor": decay_factor,
        }

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Returns the float32 learning rate of the update that follows ``step`` updates."""
        return step_decay_with_warmup(step, **self.config)

    def get_config(self) -> dict:
        """Returns the arguments."""
        return dict(self.config)


def cifar_schedule(
    *, batch_size: int, steps_per_epoch: int, epochs: int = 200
) -> StepDecayWithWarmup:
    """Builds the schedule of wide residual networks on CIFAR in uncertainty-baselines.

    The rate is 0.1 per 128 examples of the batch, after one epoch of warm-up, and a fifth of the
    former one from epochs 60, 120 and 160 of 200 on.

    Args:
        batch_size: Examples of one update, over all replicas.
        steps_per_epoch: Updates of one epoch.
        epochs: Length of the training; the milestones move in proportion, rounded down.

    Returns:
        The schedule.

    Raises:
        ValueError: If the training is too short for one epoch between warm-up and first decay.
    """
    return StepDecayWithWarmup(
        base_learning_rate=0.1 * batch_size / 128,
        warmup_steps=steps_per_epoch,
        decay_steps=[epoch * epochs // 200 * steps_per_epoch for epoch in (60, 120, 160)],
        decay_factor=0.2,
    )


def imagenet_schedule(
    *, batch_size: int, steps_per_epoch: int, epochs: int = 90
) -> StepDecayWithWarmup:
    """Builds the schedule of ResNet-50 on ImageNet in uncertainty-baselines.

    The rate is 0.1 per 256 examples of the batch, after five epochs of warm-up, and a tenth of the
    former one from epochs 30, 60 and 80 of 90 on.

    Args:
        batch_size: Examples of one update, over all replicas.
        steps_per_epoch: Updates of one epoch.
        epochs: Length of the training; the milestones move in proportion, rounded down, but the
            warm-up keeps its five epochs.

    Returns:
        The schedule.

    Raises:
        ValueError: If the training is too short for one epoch between warm-up and first decay.
    """
    return StepDecayWithWarmup(
        base_learning_rate=0.1 * batch_size / 256,
        warmup_steps=5 * steps_per_epoch,
        decay_steps=[epoch * epochs // 90 * steps_per_epoch for epoch in (30, 60, 80)],
        decay_factor=0.1,
    )
