"""What the tests of augmentations share: statistics of draws, and an attack to follow by hand."""

import itertools

import numpy as np
import tensorflow as tf
from scipy import stats

from tests.conftest import linear_network

SHAPE = (2, 2, 1)
PIXELS = np.array([[0.5, 0.02, 0.99, 0.3]])


def cells_of(values, low: float, high: float, cells: int = 20) -> np.ndarray:
    """Which of equal parts of [low, high] each value is in; a rounding outside is allowed."""
    position = (np.asarray(values, np.float64) - low) / (high - low)
    assert -1e-5 < position.min() <= position.max() < 1 + 1e-5
    return np.clip((cells * position).astype(int), 0, cells - 1)


def assert_uniform(index, cells: int) -> None:
    """Whole numbers are uniform on 0..cells − 1."""
    counts = np.bincount(np.ravel(index), minlength=cells)
    assert len(counts) == cells
    assert cells == 1 or stats.chisquare(counts).pvalue > 1e-3, counts


def assert_independent(**columns: np.ndarray) -> None:
    """Whole numbers, one an example, are independent of each other in pairs."""
    p_values = {}
    for (first, one), (second, other) in itertools.combinations(columns.items(), 2):
        counts = np.zeros([one.max() + 1, other.max() + 1])
        np.add.at(counts, (one, other), 1)
        counts = counts[counts.any(axis=1)][:, counts.any(axis=0)]
        p_values[first, second] = stats.chi2_contingency(counts).pvalue
    # So many pairs are tested at once: 1e-3 for all of them together.
    worst = min(p_values, key=p_values.get)
    assert p_values[worst] > 1e-3 / len(p_values), worst


def as_images(pixels) -> tf.Tensor:
    """float32 [B, 2, 2, 1] of four numbers an image."""
    return tf.constant(np.reshape(pixels, [-1, *SHAPE]), tf.float32)


def two_class_network(bias: float = 0.5):
    """Margin of class 1 over class 0: 2·x_0 − 3·x_1 + x_2 + bias; pixel 3 does not count."""
    network = linear_network(SHAPE, 2)
    weights = [[-1.0, 1.0], [1.0, -2.0], [0.5, 1.5], [0.0, 0.0]]
    network.set_weights([np.array(weights), np.array([0.0, bias])])
    return network
