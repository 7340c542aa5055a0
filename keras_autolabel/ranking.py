"""Whether confidence ranks: is a classifier surer where it is right?"""

import numpy as np

from keras_autolabel.calibration import check_pairs


def risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The risk-coverage curve: errors among the k surest examples, for every k.

    Examples of one confidence are in no order: each counts as their mean.

    Args:
        confidence: float [M], the largest probability of each example.
        correct: bool or int [M], whether its class is the true one.

    Returns:
        ``(coverage, risk)``, float64 [M] each: k/M for k from 1 to M, and the share of errors
        among the k examples with the largest confidences.

    Raises:
        ValueError: As in ``calibration.check_pairs``.

    Example:
        >>> coverage, risk = risk_coverage([0.5, 1.0, 0.75, 0.75], [0, 1, 1, 0])
        >>> coverage.tolist(), risk.round(3).tolist()
        ([0.25, 0.5, 0.75, 1.0], [0.0, 0.25, 0.333, 0.5])
    """
    confidence, correct = check_pairs(confidence, correct)
    if np.isnan(confidence).any():
        correct = np.full(len(correct), np.nan)
    # The surest first.
    _, group, size = np.unique(-confidence, return_inverse=True, return_counts=True)
    errors = np.repeat(np.bincount(group, 1.0 - correct) / size, size)
    covered = np.arange(1, len(errors) + 1)
    return covered / len(errors), np.cumsum(errors) / covered


def aurc(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The area under the risk-coverage curve (Geifman et al., 2019).

    Args:
        confidence: float [M], the largest probability of each example.
        correct: bool or int [M], whether its class is the true one.

    Returns:
        The mean of ``risk_coverage``'s risk, in [0, 1]; lower is better.

    Raises:
        ValueError: As in ``calibration.check_pairs``.

    Example:
        >>> round(aurc([0.5, 1.0, 0.75, 0.75], [0, 1, 1, 0]), 4)
        0.2708
    """
    _, risk = risk_coverage(confidence, correct)
    return float(risk.mean())


def e_aurc(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The excess of ``aurc`` over that of the best order (Geifman et al., 2019).

    The best order has all errors last. Its area is summed here, so that it scores exactly 0; for
    many examples and an error rate r it is ``r + (1 − r)·ln(1 − r)``, as Geifman et al. write it.
    What is left is free of accuracy: how well confidence tells right from wrong.

    Args:
        confidence: float [M], the largest probability of each example.
        correct: bool or int [M], whether its class is the true one.

    Returns:
        A float in [0, 1); lower is better.

    Raises:
        ValueError: As in ``calibration.check_pairs``.

    Example:
        >>> e_aurc([0.5, 1.0, 0.75, 0.625], [0, 1, 1, 0])
        0.0
    """
    # As a confidence, being right ranks best.
    return aurc(confidence, correct) - aurc(np.asarray(correct, np.float64), correct)
