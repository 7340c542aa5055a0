"""Cross-entropy against soft labels, in closed form: no [B, K] target is built."""

from collections.abc import Callable

import tensorflow as tf
from tensorflow import keras

from keras_autolabel.batch import AugmentedBatch, from_label_rows, label_rows
from keras_autolabel.labels import OneHot, class_shares


def soft_target_crossentropy(
    labels: tf.Tensor,
    logits: tf.Tensor,
    confidence: tf.Tensor,
    *,
    partners: tf.Tensor | None = None,
    partner_share: tf.Tensor | None = None,
) -> tf.Tensor:
    """Cross-entropy of logits z against labels given by a confidence.

    With c the confidence, s the share of the partner p and r what each other class gets:
    ``logsumexp(z) − [c·z_y + s·z_p + r·(Σ z − z_y − z_p)]``. It equals the dense cross-entropy
    against ``soft_targets`` (Eq. (2) and section 4.3 of the paper). A class that is masked out, by
    a logit of −inf, gets no share: the loss is that of the other classes alone.

    Args:
        labels: int [B], the true class y.
        logits: float [B, K] of any precision; computed in float32 (float64 stays).
        confidence: float [B], c in [0, 1].
        partners: int [B], the partner's class p; None: there is none.
        partner_share: float [B], s in [0, 1 − c]; None: 0.

    Returns:
        float [B], the loss of each example.

    Example:
        >>> loss = soft_target_crossentropy([0], [[2.0, 0.0]], tf.constant([0.9]))
        >>> round(float(loss[0]), 4)
        0.3269
    """
    logits = tf.convert_to_tensor(logits)
    logits = logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)
    labels = tf.cast(labels, tf.int32)
    partners = labels if partners is None else tf.cast(partners, tf.int32)
    confidence = tf.cast(confidence, logits.dtype)
    share = tf.zeros_like(confidence) if partner_share is None else partner_share
    share = tf.cast(share, logits.dtype)
    # A sum that is finite has no class that is masked out, which is the rule: nothing to count.
    masks = ~tf.reduce_all(tf.math.is_finite(tf.reduce_sum(logits, axis=-1)))
    masked = tf.cond(
        masks,
        lambda: tf.math.count_nonzero(tf.math.is_inf(logits), axis=-1, dtype=tf.int32),
        lambda: tf.zeros_like(labels),
    )
    shares = class_shares(labels, partners, confidence, share, logits.shape[-1], masked=masked)
    return _crossentropy(labels, partners, masks)(logits, *shares)


def _crossentropy(labels: tf.Tensor, partners: tf.Tensor, masks: tf.Tensor) -> Callable:
    """The formula of logits and shares, with its gradient, softmax − target, in as few passes.

    What TensorFlow derives from the formula takes twice the time at a thousand classes.
    """
    rows = tf.range(tf.shape(labels)[0])
    at_true, at_partner = tf.stack([rows, labels], axis=-1), tf.stack([rows, partners], axis=-1)
    same = tf.equal(labels, partners)

    def without_masked(values, logits):
        return tf.where(tf.math.is_inf(logits), tf.zeros_like(values), values)

    @tf.custom_gradient
    def crossentropy(logits, true, partner, other):
        # Targets sum to 1, so that a shift changes nothing but the rounding of large logits.
        logits -= tf.stop_gradient(tf.reduce_max(logits, axis=-1, keepdims=True))
        powers = tf.exp(logits)
        total = tf.reduce_sum(powers, axis=-1)
        known = tf.cond(masks, lambda: without_masked(logits, logits), lambda: logits)
        z_y, z_p = tf.gather_nd(logits, at_true), tf.gather_nd(logits, at_partner)
        known_p = tf.where(same, tf.zeros_like(z_p), tf.gather_nd(known, at_partner))
        z_others = tf.reduce_sum(known, axis=-1) - tf.gather_nd(known, at_true) - known_p
        spent = true * z_y + tf.math.multiply_no_nan(z_p, partner) + other * z_others

        def gradient(upstream):
            each = powers * (upstream / total)[:, tf.newaxis] - (upstream * other)[:, tf.newaxis]
            each = tf.cond(masks, lambda: without_masked(each, logits), lambda: each)
            more_p = tf.where(same, tf.zeros_like(partner), other - partner)
            each = tf.tensor_scatter_nd_add(each, at_true, upstream * (other - true))
            each = tf.tensor_scatter_nd_add(each, at_partner, upstream * more_p)
            return each, *(-upstream * slope for slope in (z_y, known_p, z_others))

        return tf.math.log(total) - spent, gradient

    return crossentropy


@keras.utils.register_keras_serializable(package="keras_autolabel")
class SoftTargetLoss(keras.losses.Loss):
    """Cross-entropy against the labels of a policy, gathered by bucket in the train step.

    ``y_true`` is an ``AugmentedBatch``, or all of it but its images as one tensor, in which form
    Keras passes it on (``batch.label_rows``). Plain class numbers are also taken: they are labels
    of clean images, and get the ordinary cross-entropy.

    Args:
        policy: The label policy, ``policy(batch) -> (confidence, partner_share)``.
        reduction: ``"sum_over_batch_size"``, ``"sum"`` or ``"none"``.
        name: Name of the loss.

    Example:
        >>> from keras_autolabel import OneHot
        >>> from keras_autolabel.batch import clean_batch
        >>> loss = SoftTargetLoss(OneHot())
        >>> batch = clean_batch(tf.zeros([2, 8, 8, 1]), [0, 1])
        >>> round(float(loss(batch, tf.constant([[2.0, 0.0], [2.0, 0.0]]))), 4)
        1.1269
    """

    def __init__(
        self,
        policy: Callable[[AugmentedBatch], tuple[tf.Tensor, tf.Tensor]],
        *,
        reduction: str = "sum_over_batch_size",
        name: str = "soft_target_loss",
    ) -> None:
        super().__init__(reduction=reduction, name=name)
        self.policy = policy

    def call(self, y_true: AugmentedBatch | tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """float [B]: the loss of each example.

        Args:
            y_true: An ``AugmentedBatch``, float rows [B, 5], or class numbers [B] of clean images.
            y_pred: Logits [B, K].
        """
        if isinstance(y_true, AugmentedBatch):
            y_true = label_rows(y_true)
        batch = from_label_rows(y_true)
        policy = self.policy if y_true.shape[1:] == [5] else OneHot()
        confidence, partner_share = policy(batch)
        losses = soft_target_crossentropy(
            batch.labels,
            y_pred,
            confidence,
            partners=batch.partners,
            partner_share=partner_share,
        )
        if getattr(policy, "weighs_loss", False):
            losses *= tf.cast(confidence, losses.dtype)
        return losses

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "policy": keras.utils.serialize_keras_object(self.policy),
        }

    @classmethod
    def from_config(cls, config: dict) -> "SoftTargetLoss":
        """The loss that ``get_config`` describes."""
        config = dict(config, policy=keras.utils.deserialize_keras_object(config["policy"]))
        return cls(**config)
