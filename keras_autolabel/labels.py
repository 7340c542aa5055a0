"""Labels for augmented data: the formulas of the paper, and the policies that use them.

A label policy maps an ``AugmentedBatch`` to the confidence of the true class and the share of the
partner; what remains goes evenly to all other classes.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

from keras_autolabel.batch import AugmentedBatch, check_numbers, check_whole

# κ of ``update_confidence_together``; docs/results.md says how it was chosen.
CLEAN_WEIGHT = 3.0


def update_confidence(
    confidence: tf.Tensor,
    *,
    ece: tf.Tensor,
    conf: tf.Tensor,
    acc: tf.Tensor,
    step_size: float,
    floor: float = 0.0,
) -> tf.Tensor:
    """One update of the learned labels: Eq. (1) of the paper, and the clip that follows it.

    ``ỹ ← ỹ − α·ECE(Q)·sign(Conf(Q) − Acc(Q))``, then clipped to ``[max(Acc(Q), floor), 1]``: an
    over-confident network gets softer labels, an under-confident one harder labels.

    Args:
        confidence: float tensor ỹ of any shape, one entry a bucket, in [0, 1].
        ece: Same shape: ECE of the augmented hold-out Q(S_n), in [0, 1].
        conf: Same shape: mean confidence on Q(S_n), in [0, 1].
        acc: Same shape: accuracy on Q(S_n), in [0, 1].
        step_size: α.
        floor: Lower bound beside Acc; 1/K keeps labels from teaching to avoid the truth where
            accuracy falls below chance, as it can under attack.

    Returns:
        Float tensor of the same shape. An entry with a NaN among its inputs (an empty bucket, or
        a network that diverged) is returned unchanged.

    Example:
        >>> update_confidence([0.8], ece=[0.2], conf=[0.9], acc=[0.7], step_size=0.5).numpy()
        array([0.7], dtype=float32)
    """
    confidence = tf.convert_to_tensor(confidence)
    ece, conf, acc = (tf.cast(x, confidence.dtype) for x in (ece, conf, acc))
    updated = confidence - step_size * ece * tf.sign(conf - acc)
    updated = tf.clip_by_value(updated, tf.maximum(acc, floor), 1.0)
    return tf.where(tf.math.is_finite(ece + conf + acc), updated, confidence)


def update_confidence_together(
    confidence: tf.Tensor,
    *,
    ece: tf.Tensor,
    conf: tf.Tensor,
    acc: tf.Tensor,
    clean_conf: tf.Tensor,
    clean_acc: tf.Tensor,
    step_size: float,
    floor: float = 0.0,
    clean_weight: float = CLEAN_WEIGHT,
) -> tf.Tensor:
    """One update by a step that all labels share, held against the clean images. Not of the paper.

    ``ỹ ← ỹ − α·(mean of ECE(Q)·sign(Conf(Q) − Acc(Q)) + κ·(Conf(D_V) − Acc(D_V)))``, then clipped
    as by ``update_confidence``. One network serves all buckets: where each label follows its own
    bucket, far ones fall and take the confidence of clean images with them. A shared step keeps
    the shape that the labels start with, so that no slope over the distance is learned, and stops
    where the clean images are as under-confident as κ allows.

    Args:
        confidence: float tensor ỹ of any shape, one entry a bucket, in [0, 1].
        ece: Same shape: ECE of the augmented hold-out Q(S_n), in [0, 1].
        conf: Same shape: mean confidence on Q(S_n), in [0, 1].
        acc: Same shape: accuracy on Q(S_n), in [0, 1].
        clean_conf: Scalar: mean confidence on the clean hold-out D_V, in [0, 1].
        clean_acc: Scalar: accuracy on D_V, in [0, 1].
        step_size: α.
        floor: As of ``update_confidence``.
        clean_weight: κ.

    Returns:
        Float tensor of the same shape. An entry with a NaN among its inputs is returned unchanged
        and left out of the mean; without a finite clean figure all are.

    Example:
        >>> update_confidence_together(
        ...     [1.0, 0.75], ece=[0.25, 0.75], conf=[0.75, 1.0], acc=[0.5, 0.25],
        ...     clean_conf=0.5, clean_acc=0.625, step_size=0.5, clean_weight=2.0,
        ... ).numpy().tolist()
        [0.875, 0.625]
    """
    confidence = tf.convert_to_tensor(confidence)
    ece, conf, acc, clean_conf, clean_acc = (
        tf.cast(x, confidence.dtype) for x in (ece, conf, acc, clean_conf, clean_acc)
    )
    known = tf.math.is_finite(ece + conf + acc)
    errors = tf.boolean_mask(ece * tf.sign(conf - acc), known)
    step = step_size * (tf.reduce_mean(errors) + clean_weight * (clean_conf - clean_acc))
    updated = tf.clip_by_value(confidence - step, tf.maximum(acc, floor), 1.0)
    return tf.where(known & tf.math.is_finite(step), updated, confidence)


def mixup_share(confidence: tf.Tensor, mix: tf.Tensor) -> tf.Tensor:
    """The partner's share of the label: ``min(1 − ỹ, γ/(1 − γ)·ỹ)`` (section 4.3 of the paper).

    Args:
        confidence: float tensor ỹ of the dominant class.
        mix: float tensor γ, the partner's weight in the image, in [0, 0.5].

    Returns:
        float tensor in [0, 1 − ỹ].

    Example:
        >>> mixup_share(tf.constant([0.75, 0.9]), tf.constant([0.25, 0.25])).numpy().round(3)
        array([0.25, 0.1 ], dtype=float32)
    """
    return tf.minimum(1.0 - confidence, mix / (1.0 - mix) * confidence)


def class_shares(
    labels: tf.Tensor,
    partners: tf.Tensor,
    confidence: tf.Tensor,
    partner_share: tf.Tensor,
    num_classes: int,
    *,
    masked: tf.Tensor | int = 0,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """What the true class, the partner's class and each other class get; together they are 1.

    Where both classes are one, it gets both shares. With two classes nothing is left to spread,
    so that the partner's class gets all that the true class leaves.

    Args:
        labels: int [B], the true class.
        partners: int [B], the partner's class.
        confidence: float [B].
        partner_share: float [B], at most ``1 − confidence``.
        num_classes: K.
        masked: int32 [B], how many of the other classes are masked out, and get nothing.

    Returns:
        ``(true, partner, other)``, each float [B]; ``partner`` is 0 where both classes are one.

    Raises:
        ValueError: If ``num_classes`` is below 2.

    Example:
        >>> shares = class_shares([3], [1], tf.constant([0.75]), tf.constant([0.25]), 10)
        >>> [float(share[0]) for share in shares]
        [0.75, 0.25, 0.0]
    """
    check_whole(2, num_classes=num_classes)
    same = tf.equal(labels, partners)
    others = tf.where(same, num_classes - 1, num_classes - 2) - masked
    partner_share = tf.where(~same & (others < 1), 1.0 - confidence, partner_share)
    true = tf.where(same, confidence + partner_share, confidence)
    partner = tf.where(same, tf.zeros_like(partner_share), partner_share)
    other = tf.maximum(1.0 - true - partner, 0.0) / tf.cast(tf.maximum(others, 1), true.dtype)
    return true, partner, other


def soft_targets(
    labels: tf.Tensor,
    confidence: tf.Tensor,
    *,
    num_classes: int,
    partners: tf.Tensor | None = None,
    mix: tf.Tensor | None = None,
) -> tf.Tensor:
    """The label of each image as a distribution over classes: Eq. (2), or section 4.3 with mixup.

    For inspection and tests; the loss never builds it.

    Args:
        labels: int [B], the true (in mixup: the dominant) class.
        confidence: float [B], ỹ of that class, in [0, 1].
        num_classes: K, at least 2.
        partners: int [B], the second class in mixup; None: there is none.
        mix: float [B], the partner's weight in [0, 0.5]; None: 0.

    Returns:
        float [B, K], rows that sum to 1.

    Raises:
        ValueError: If ``num_classes`` is below 2, or one of ``partners`` and ``mix`` is missing.

    Example:
        >>> soft_targets([2], tf.constant([0.25]), num_classes=4).numpy().tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """
    if (partners is None) != (mix is None):
        raise ValueError(
            "partners and mix come together. "
            f"Received: partners={partners is not None}, mix={mix is not None} (given)"
        )
    labels, confidence = tf.cast(labels, tf.int32), tf.convert_to_tensor(confidence)
    partners = labels if partners is None else tf.cast(partners, tf.int32)
    mix = tf.zeros_like(confidence) if mix is None else tf.cast(mix, confidence.dtype)
    share = mixup_share(confidence, mix)
    true, partner, other = class_shares(labels, partners, confidence, share, num_classes)
    is_true = tf.one_hot(labels, num_classes, dtype=confidence.dtype)
    is_partner = tf.where(
        tf.equal(labels, partners)[:, tf.newaxis],
        tf.zeros_like(is_true),
        tf.one_hot(partners, num_classes, dtype=confidence.dtype),
    )
    is_other = 1.0 - is_true - is_partner
    return sum(
        is_class * share[:, tf.newaxis]
        for is_class, share in ((is_true, true), (is_partner, partner), (is_other, other))
    )


def _even_share(batch: AugmentedBatch, confidence: tf.Tensor, num_classes: int) -> tf.Tensor:
    """The partner's share under a policy that treats it like every other class."""
    share = (1.0 - confidence) / (num_classes - 1)
    return tf.where(tf.equal(batch.labels, batch.partners), tf.zeros_like(share), share)


class LabelPolicy:
    """What label policies share: what they read of a batch, and their config.

    Attributes:
        needs: What a batch must offer, see ``Augmentation.offers``.
        reads_mix: Whether the second image of a mixture gets its share of the label.
        weighs_loss: Whether the loss of an example is multiplied by the confidence of its label.
    """

    needs: frozenset[str] = frozenset()
    reads_mix = False
    weighs_loss = False

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, which are kept under their own names."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LabelPolicy":
        """The policy that ``get_config`` describes."""
        return cls(**config)


@keras.utils.register_keras_serializable(package="keras_autolabel")
class OneHot(LabelPolicy):
    """All for the true class, however far the image was moved: what most augmentation does.

    Example:
        >>> from keras_autolabel.batch import clean_batch
        >>> confidence, partner_share = OneHot()(clean_batch(tf.zeros([1, 8, 8, 1]), [3]))
        >>> float(confidence[0]), float(partner_share[0])
        (1.0, 0.0)
    """

    def __call__(self, batch: AugmentedBatch) -> tuple[tf.Tensor, tf.Tensor]:
        """``(confidence, partner_share)``, each float32 [B]."""
        return tf.ones_like(batch.mix), tf.zeros_like(batch.mix)


@keras.utils.register_keras_serializable(package="keras_autolabel")
class LabelSmoothing(LabelPolicy):
    """The same softened label at every distance: ``1 − ε + ε/K`` (Szegedy et al., 2016).

    It agrees with ``label_smoothing=ε`` of Keras' own losses.

    Args:
        smoothing: ε in [0, 1), the mass that is spread evenly over all K classes.
        num_classes: K, at least 2.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> from keras_autolabel.batch import clean_batch
        >>> policy = LabelSmoothing(0.1, num_classes=10)
        >>> confidence, _ = policy(clean_batch(tf.zeros([1, 8, 8, 1]), [3]))
        >>> round(float(confidence[0]), 4)
        0.91
    """

    def __init__(self, smoothing: float = 0.1, *, num_classes: int) -> None:
        check_numbers(smoothing=smoothing)
        if not 0.0 <= smoothing < 1.0:
            raise ValueError(f"smoothing must be in [0, 1). Received: smoothing={smoothing}")
        check_whole(2, num_classes=num_classes)
        self.smoothing = smoothing
        self.num_classes = num_classes

    def __call__(self, batch: AugmentedBatch) -> tuple[tf.Tensor, tf.Tensor]:
        """``(confidence, partner_share)``, each float32 [B]."""
        confidence = tf.ones_like(batch.mix) - self.smoothing * (1.0 - 1.0 / self.num_classes)
        return confidence, _even_share(batch, confidence, self.num_classes)


@keras.utils.register_keras_serializable(package="keras_autolabel")
class MixupLabels(LabelPolicy):
    """Ordinary mixup: each class gets the weight of its image, 1 − γ and γ (Zhang et al., 2018).

    Example:
        >>> from keras_autolabel import Mixup
        >>> images = tf.zeros([4, 8, 8, 1])
        >>> batch = Mixup()(images, [0, 1, 2, 3], seed=tf.constant([1, 2]))
        >>> confidence, partner_share = MixupLabels()(batch)
        >>> bool(tf.reduce_all(confidence + partner_share == 1.0))
        True
    """

    needs = frozenset({"mix"})
    reads_mix = True

    def __call__(self, batch: AugmentedBatch) -> tuple[tf.Tensor, tf.Tensor]:
        """``(confidence, partner_share)``, each float32 [B]."""
        return 1.0 - batch.mix, batch.mix


@keras.utils.register_keras_serializable(package="keras_autolabel")
class ConfidenceCalibrated(LabelPolicy):
    """Labels that fall to uniform as the perturbation grows: CCAT (Stutz et al., 2020).

    ``ỹ = g·ŷ + (1 − g)/K`` with ``g = (1 − min(1, ‖δ‖∞/ε))^ρ``, the "power transition"; the
    distance of the batch is ‖δ‖∞/ε, as ``HalfAdversarial`` measures it.

    Args:
        num_classes: K, at least 2.
        rho: ρ, above 0.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> from keras_autolabel.batch import clean_batch
        >>> batch = clean_batch(tf.zeros([2, 8, 8, 1]), [3, 3])
        >>> batch = batch._replace(distance=tf.constant([0.0, 1.0]))
        >>> confidence, _ = ConfidenceCalibrated(num_classes=4)(batch)
        >>> confidence.numpy().tolist()
        [1.0, 0.25]
    """

    needs = frozenset({"perturbation"})

    def __init__(self, *, num_classes: int, rho: float = 10.0) -> None:
        check_whole(2, num_classes=num_classes)
        check_numbers(rho=rho)
        if not rho > 0.0:
            raise ValueError(f"rho must be above 0. Received: rho={rho}")
        self.num_classes = num_classes
        self.rho = rho

    def __call__(self, batch: AugmentedBatch) -> tuple[tf.Tensor, tf.Tensor]:
        """``(confidence, partner_share)``, each float32 [B]."""
        g = (1.0 - tf.minimum(1.0, batch.distance)) ** self.rho
        confidence = g + (1.0 - g) / self.num_classes
        return confidence, _even_share(batch, confidence, self.num_classes)


@keras.utils.register_keras_serializable(package="keras_autolabel")
class PowerLabels(LabelPolicy):
    """Labels that fall with a power of the distance: soft augmentation (Liu et al., 2023).

    ``ỹ = 1 − (1 − 1/K)·d^k``: a clean image is certain, one that is lost altogether is like any
    other class. It is meant for ``SoftCrop``, whose distance is the part that is lost.

    Args:
        num_classes: K, at least 2.
        exponent: k, above 0.
        weighs_loss: Whether the loss of an example is multiplied by its ỹ, as the authors do.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> from keras_autolabel.batch import clean_batch
        >>> batch = clean_batch(tf.zeros([3, 8, 8, 1]), [3, 3, 3])
        >>> batch = batch._replace(distance=tf.constant([0.0, 0.5, 1.0]))
        >>> confidence, _ = PowerLabels(num_classes=4)(batch)
        >>> confidence.numpy().tolist()
        [1.0, 0.8125, 0.25]
    """

    def __init__(
        self, *, num_classes: int, exponent: float = 2.0, weighs_loss: bool = False
    ) -> None:
        check_whole(2, num_classes=num_classes)
        check_numbers(exponent=exponent)
        if not exponent > 0.0:
            raise ValueError(f"exponent must be above 0. Received: exponent={exponent}")
        self.num_classes = num_classes
        self.exponent = exponent
        self.weighs_loss = weighs_loss

    def __call__(self, batch: AugmentedBatch) -> tuple[tf.Tensor, tf.Tensor]:
        """``(confidence, partner_share)``, each float32 [B]."""
        confidence = 1.0 - (1.0 - 1.0 / self.num_classes) * batch.distance**self.exponent
        return confidence, _even_share(batch, confidence, self.num_classes)


@keras.utils.register_keras_serializable(package="keras_autolabel")
class LabelTable(keras.layers.Layer):
    """AutoLabel's labels: a table with one confidence a bucket, a weight of the model.

    The callback ``AutoLabel`` updates it after each epoch; it is read inside the train step, so
    that an update reaches a traced graph and every replica, and it is saved with the model.

    Args:
        bucket_shape: Shape of the table, the ``bucket_shape`` of the augmentation: ``(N,)``, or
            for AugMix ``(max_depth, N)``.
        initial: Where the labels start, in [0, 1]: a number, or an array of ``bucket_shape``.
        name: Name of the layer.

    Raises:
        ValueError: If ``bucket_shape`` is no shape, or ``initial`` is out of range or does not
            fit it.

    Example:
        >>> table = LabelTable((5,), initial=0.75)
        >>> table.confidence.numpy().tolist()
        [0.75, 0.75, 0.75, 0.75, 0.75]
    """

    needs = frozenset({"bucket"})
    reads_mix = True

    def __init__(
        self,
        bucket_shape: Sequence[int],
        *,
        initial: float | np.ndarray = 1.0,
        name: str = "label_table",
    ) -> None:
        # autocast would read the table as bfloat16 under mixed precision: 0.9 becomes 0.8984.
        super().__init__(name=name, dtype="float32", trainable=False, autocast=False)
        if np.ndim(bucket_shape) != 1 or not len(bucket_shape):
            raise ValueError(
                "bucket_shape must be that of the augmentation, such as (10,). "
                f"Received: bucket_shape={bucket_shape!r}"
            )
        for size in bucket_shape:
            check_whole(1, bucket_shape=size)
        self.bucket_shape = tuple(int(size) for size in bucket_shape)
        start = np.asarray(initial, np.float32)
        if not np.all((start >= 0.0) & (start <= 1.0)):
            raise ValueError(f"initial must lie in [0, 1]. Received: initial={initial}")
        if start.shape not in ((), self.bucket_shape):
            raise ValueError(
                "initial must be a number or an array of bucket_shape. Received: "
                f"initial.shape={start.shape}, bucket_shape={self.bucket_shape}"
            )
        self.initial = np.broadcast_to(start, self.bucket_shape)
        self.confidence = self.add_weight(
            name="confidence", shape=self.bucket_shape, initializer="ones", trainable=False
        )
        self.confidence.assign(self.initial)
        self.build(self.bucket_shape)

    def build(self, input_shape: Sequence[int]) -> None:
        """Nothing to build; ``summary`` shows the shape, Keras 3 by way of the next method."""
        self.built = True

    def compute_output_shape(self, input_shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the table."""
        return self.bucket_shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the table: what ``summary`` of Keras 2 shows."""
        return self.bucket_shape

    def call(self, batch: AugmentedBatch) -> tuple[tf.Tensor, tf.Tensor]:
        """``(confidence, partner_share)``, each float32 [B], gathered by ``batch.bucket``."""
        table = tf.reshape(tf.convert_to_tensor(self.confidence), [-1])
        confidence = tf.gather(table, batch.bucket)
        return confidence, mixup_share(confidence, batch.mix)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {
            "bucket_shape": self.bucket_shape,
            "initial": self.initial.tolist(),
            "name": self.name,
        }
