"""ℓ∞ attacks by projected gradient ascent (Madry et al., 2018), on the scale of [0, 1]."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_autolabel.batch import asserted, check_batch, check_whole, to_float, untranslated
from keras_autolabel.distribution import uniform_rows


def crossentropy_of_truth(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of the true class, float32 [B]: what the attack of the paper maximises."""
    logits = tf.cast(logits, tf.float32)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def margin(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """By how much the best wrong class beats the true one (Carlini & Wagner, 2017).

    Its gradient does not fade where a network is sure of itself, as that of the cross-entropy
    does; an attack with it tells robust networks from those whose gradients are merely small. It is
    float32 [B], above 0 where the prediction is wrong.

    Example:
        >>> margin(tf.constant([0]), tf.constant([[3.0, 1.0, 2.0]])).numpy().tolist()
        [-1.0]
    """
    logits = tf.cast(logits, tf.float32)
    is_true = tf.one_hot(labels, logits.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
    best_wrong = tf.reduce_max(tf.where(is_true, logits.dtype.min, logits), axis=-1)
    return best_wrong - tf.gather(logits, labels, batch_dims=1)


def projected_gradient_descent(
    network: Callable,
    images: tf.Tensor,
    labels: tf.Tensor,
    *,
    epsilon: float | tf.Tensor,
    num_steps: int,
    step_size: float | tf.Tensor,
    seed: tf.Tensor,
    num_restarts: int = 1,
    loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = crossentropy_of_truth,
) -> tf.Tensor:
    """Untargeted PGD attack for evaluation.

    Each restart begins at a random point of the ball. An image whose prediction is wrong is done
    with, at the first step where that is so, and leaves the batch: what remains to be attacked
    gets smaller. One that is wrong without an attack comes back as it is. Where no restart
    succeeds, the image with the highest loss of all that were seen is returned. The network runs
    in inference mode; neither its weights nor its statistics change.

    Args:
        network: ``network(images, training=False)`` -> logits [B, K].
        images: uint8, or float in [0, 1], [B, H, W, C].
        labels: int [B], the true classes.
        epsilon: Largest change of a pixel on the scale of [0, 1], in [0, 1]; a number or
            float32 [B].
        num_steps: Gradient steps of each restart, at least 1.
        step_size: Length of a step on the scale of [0, 1]; a number or float32 [B].
        seed: int32 [2], a stateless seed.
        num_restarts: Random starts, at least 1.
        loss: ``loss(labels, logits)`` -> [B], maximised; ``crossentropy_of_truth`` or ``margin``.

    Returns:
        float32 [B, H, W, C] in [0, 1], within ε of the images.

    Raises:
        ValueError: If an argument is out of its range.
        tf.errors.InvalidArgumentError: If the network returns probabilities, or a gradient is not
            finite (the message names weights that are not finite either).

    Example:
        >>> from tensorflow import keras
        >>> network = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(),
        ...                             keras.layers.Dense(3)])
        >>> images = tf.fill([2, 4, 4, 1], 0.5)
        >>> adversarial = projected_gradient_descent(
        ...     network, images, [0, 1], epsilon=0.1, num_steps=3, step_size=0.05, seed=[1, 2])
        >>> bool(tf.reduce_all(tf.abs(adversarial - images) <= 0.1 + 1e-6))
        True
    """
    check_epsilon(epsilon, smallest=0.0)
    check_whole(1, num_steps=num_steps, num_restarts=num_restarts)
    known = _known(step_size)
    if known is not None and not (known.dtype.kind in "fiu" and np.all(known >= 0.0)):
        raise ValueError(
            f"step_size must be a number of at least 0. Received: step_size={step_size!r}"
        )
    images, labels = check_batch(images, labels)
    clean = to_float(images)
    size = tf.shape(labels)[0]
    ball = [tf.broadcast_to(tf.cast(x, tf.float32), [size]) for x in (epsilon, step_size)]
    logits = network(clean, training=False)
    clean = of_logits(clean, logits)

    def restart(number, found, found_loss, broken):
        rows = tf.reshape(tf.where(~broken), [-1])
        attacked, attacked_loss, attacked_broken = _attack_once(
            network,
            *(tf.gather(x, rows) for x in (clean, labels, *ball)),
            num_steps=num_steps,
            seed=tf.random.experimental.stateless_fold_in(seed, number),
            loss=loss,
        )
        # A wrong prediction beats every loss.
        better = attacked_broken | (attacked_loss >= tf.gather(found_loss, rows))
        rows, at = tf.boolean_mask(rows, better)[:, tf.newaxis], tf.where(better)[:, 0]
        return (
            number + 1,
            tf.tensor_scatter_nd_update(found, rows, tf.gather(attacked, at)),
            tf.tensor_scatter_nd_update(found_loss, rows, tf.gather(attacked_loss, at)),
            tf.tensor_scatter_nd_update(broken, rows, tf.gather(attacked_broken, at)),
        )

    wrong = tf.argmax(logits, -1, tf.int32) != labels
    start = (0, clean, loss(labels, tf.cast(logits, tf.float32)), wrong)
    left = tf.while_loop(
        lambda number, _, __, broken: (number < num_restarts) & ~tf.reduce_all(broken),
        restart,
        start,
    )
    return tf.stop_gradient(left[1])


def _attack_once(network, clean, labels, epsilon, step_size, *, num_steps, seed, loss):
    """One restart: the images of highest loss, their losses, and which predictions are wrong.

    An image whose prediction is wrong is written down and leaves the arrays that are attacked.
    """
    start = random_start(clean, tf.reshape(epsilon, [-1, 1, 1, 1]), seed)
    size = tf.shape(labels)[0]
    state = (start, tf.fill([size], -float("inf")), tf.zeros([size], tf.bool))

    def step(index, rows, adversarial, best, best_loss, broken):
        ball = (tf.reshape(tf.gather(x, rows), [-1, 1, 1, 1]) for x in (epsilon, step_size))
        truth = tf.gather(labels, rows)
        moved, losses, logits = gradient_step(
            network, adversarial, tf.gather(clean, rows), truth, *ball, loss=loss
        )
        wrong = tf.argmax(logits, axis=-1, output_type=tf.int32) != truth
        better = wrong | (losses >= tf.gather(best_loss, rows))
        at = tf.boolean_mask(rows, better)[:, tf.newaxis]
        stay = ~wrong
        return (
            index + 1,
            tf.boolean_mask(rows, stay),
            tf.boolean_mask(moved, stay),
            tf.tensor_scatter_nd_update(best, at, tf.boolean_mask(adversarial, better)),
            tf.tensor_scatter_nd_update(best_loss, at, tf.boolean_mask(losses, better)),
            tf.tensor_scatter_nd_update(broken, rows[:, tf.newaxis], wrong),
        )

    # The step after the last one only looks at where that has led.
    carried = (0, tf.range(size), start, *state)
    invariants = [tf.TensorShape(x.shape) for x in map(tf.convert_to_tensor, carried)]
    invariants[1] = tf.TensorShape([None])
    invariants[2] = tf.TensorShape([None, *clean.shape[1:]])
    left = tf.while_loop(
        lambda index, rows, *_: (index <= num_steps) & (tf.size(rows) > 0),
        step,
        carried,
        shape_invariants=tuple(invariants),
    )
    return left[3:]


def gradient_step(
    network: Callable,
    adversarial: tf.Tensor,
    clean: tf.Tensor,
    labels: tf.Tensor,
    epsilon: tf.Tensor,
    step_size: tf.Tensor,
    *,
    loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = crossentropy_of_truth,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One step along the sign of the gradient, back into the ball and into [0, 1].

    Args:
        network: As in ``projected_gradient_descent``.
        adversarial: float32 [B, H, W, C], where the attack stands.
        clean: float32 [B, H, W, C].
        labels: int32 [B].
        epsilon: float32 [B, 1, 1, 1], as is the step.
        step_size: Its length.
        loss: What is maximised.

    Returns:
        ``(moved, losses, logits)``: the new images, and what the network says of the old ones, in
        its own dtype.
    """
    # The weights are not watched: no gradient can reach them from here.
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(adversarial)
        outputs = network(adversarial, training=False)
    logits = tf.cast(outputs, tf.float32)
    with tf.GradientTape(watch_accessed_variables=False) as tape_of_loss:
        tape_of_loss.watch(logits)
        losses = loss(labels, logits)
    # Of the sum: the gradient of an image does not depend on how many are beside it.
    ascent = _near_one(tape_of_loss.gradient(losses, logits))
    gradient = tape.gradient(outputs, adversarial, output_gradients=tf.cast(ascent, outputs.dtype))
    moved = adversarial + step_size * tf.sign(_finite(gradient, network))
    return into_ball(moved, clean, epsilon), losses, outputs


@untranslated
def random_start(
    clean: tf.Tensor, epsilon: tf.Tensor, seed: tf.Tensor, first_row: tf.Tensor | int = 0
) -> tf.Tensor:
    """A point drawn uniformly from the ball, cut to [0, 1]; arguments as in ``gradient_step``.

    ``first_row`` is the number of the first image in the global batch of several replicas.
    """
    noise = 2.0 * uniform_rows(tf.shape(clean), seed, first_row) - 1.0
    return into_ball(clean + epsilon * noise, clean, epsilon)


def into_ball(images: tf.Tensor, clean: tf.Tensor, epsilon: tf.Tensor) -> tf.Tensor:
    """Images cut to within ε of the clean ones, and to [0, 1]."""
    lowest = tf.maximum(clean - epsilon, 0.0)
    highest = tf.minimum(clean + epsilon, 1.0)
    return tf.clip_by_value(images, lowest, highest)


def check_epsilon(epsilon: float | tf.Tensor, *, smallest: float | None = None) -> None:
    """Refuses an ε that cannot be meant on the scale of [0, 1].

    Args:
        epsilon: The ε, a number, an array or a tensor; one whose value is only known when the
            graph runs is not looked at.
        smallest: Smallest value allowed; None: above 0.

    Raises:
        ValueError: If it is out of range.
    """
    values = _known(epsilon)
    if values is None:
        return
    numeric = values.dtype.kind in "fiu"
    above = np.greater if smallest is None else np.greater_equal
    if not numeric or not np.all(above(values, smallest or 0.0) & (values <= 1.0)):
        raise ValueError(
            "epsilon must be above 0 and at most 1, since images are on the scale of [0, 1]; "
            f"for 8 grey levels of 255 pass 8/255. Received: epsilon={epsilon!r}"
        )


def _known(value: float | np.ndarray | tf.Tensor) -> np.ndarray | None:
    """A number or tensor as an array; None where only a running graph knows it."""
    return tf.get_static_value(value) if tf.is_tensor(value) else np.asarray(value)


def _near_one(gradient: tf.Tensor) -> tf.Tensor:
    """Rows scaled so that the largest element is in [1, 2): only the sign counts in the end.

    The gradient of a network that is sure of itself, 1e-8, say, would be 0 in float16. By a power
    of two, the exponent bits of the largest element, since that leaves float32 exact.
    """
    largest = tf.reduce_max(tf.abs(gradient), axis=-1, keepdims=True)
    power = tf.bitcast(
        tf.bitwise.bitwise_and(tf.bitcast(largest, tf.int32), 0x7F800000), tf.float32
    )
    return gradient / tf.maximum(power, np.finfo(np.float32).tiny)


@untranslated
def of_logits(value: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """A value as it is; asserts in the graph that outputs, float [B, K], are no probabilities."""
    tolerance = {tf.bfloat16: 2e-2, tf.float16: 5e-3}.get(outputs.dtype, 1e-3)
    outputs = tf.cast(outputs, tf.float32)
    sums_to_one = tf.reduce_all(tf.abs(tf.reduce_sum(outputs, axis=-1) - 1.0) < tolerance)
    probabilities = tf.reduce_all(outputs >= 0.0) & sums_to_one & (tf.size(outputs) > 0)
    message = "The network returns probabilities; attack its logits: leave out the softmax."
    return asserted(value, ~probabilities, message)


@untranslated
def _finite(gradient: tf.Tensor, network: Callable) -> tf.Tensor:
    """A gradient as it is; where it is not finite, names the weights that are not either."""
    finite = tf.reduce_all(tf.math.is_finite(gradient))
    weights = [w for w in getattr(network, "weights", []) if "float" in str(w.dtype)]

    def names_of_bad_weights():
        bad = [~tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(w))) for w in weights]
        names = tf.constant([getattr(w, "path", w.name) for w in weights], tf.string)
        chosen = tf.boolean_mask(names, tf.stack(bad)) if weights else names
        joined = tf.strings.reduce_join(chosen, separator=", ")
        return tf.where(joined == "", "none", joined)

    names = tf.cond(finite, lambda: tf.constant(""), names_of_bad_weights)
    message = "The gradient at the images is not finite; weights that are not finite either:"
    return asserted(gradient, finite, message, names)
