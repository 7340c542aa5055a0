"""The figures of a classifier, and how they are shown and kept."""

import importlib.metadata
import json
import os
import platform

import numpy as np
import tensorflow as tf
from tensorflow import keras

import keras_autolabel as kal
from keras_autolabel.calibration import calibration_of, calibration_sums


class Scores:
    """Accuracy, ECE, NLL and Brier score, added up batch by batch.

    Args:
        num_bins: Bins of the ECE.

    Example:
        >>> scores = Scores()
        >>> scores.add(np.array([0]), np.array([[0.0, 0.0]]))
        >>> scores.figures()["brier"]
        0.5
    """

    def __init__(self, num_bins: int = 15):
        self.bins = np.zeros((num_bins, 3))
        self.examples = self.correct = 0
        self.nll = self.brier = 0.0

    def add(self, labels: np.ndarray, logits: np.ndarray) -> None:
        """Adds a batch.

        Args:
            labels: int [B].
            logits: float [B, K].
        """
        logits = np.asarray(logits, np.float64)
        if len(labels) and max(labels) >= logits.shape[-1]:
            raise ValueError(
                f"There are labels up to {max(labels)}, but the model knows "
                f"{logits.shape[-1]} classes."
            )
        shifted = logits - logits.max(axis=-1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        probabilities = np.exp(log_probabilities)
        errors = probabilities - np.eye(logits.shape[-1])[labels]
        sums = calibration_sums(labels, probabilities, num_bins=len(self.bins))
        self.bins += sums[0].numpy()
        self.examples += len(labels)
        self.correct += int(np.sum(logits.argmax(axis=-1) == labels))
        self.nll -= float(log_probabilities[np.arange(len(labels)), labels].sum())
        self.brier += float((errors**2).sum())

    def figures(self) -> dict[str, float]:
        """The figures of all that was added.

        Returns:
            A dict: ``examples``; ``accuracy`` and ``ece`` in [0, 1]; ``nll``, the mean negative
            log-likelihood in nats; ``brier``, the mean over examples of the squared error summed
            over classes, in [0, 2].
        """
        ece, _, _ = calibration_of(tf.constant(self.bins))
        return {
            "examples": self.examples,
            "accuracy": self.correct / self.examples,
            "ece": float(ece),
            "nll": self.nll / self.examples,
            "brier": self.brier / self.examples,
        }


def figures_of(labels: np.ndarray, logits: np.ndarray, *, num_bins: int = 15) -> dict[str, float]:
    """The figures of predictions that are all there; see ``Scores.figures``.

    Args:
        labels: int [M].
        logits: float [M, K].
        num_bins: Bins of the ECE.

    Returns:
        What ``Scores.figures`` returns.
    """
    scores = Scores(num_bins)
    scores.add(labels, logits)
    return scores.figures()


def table_of(rows: dict[str, dict[str, float]]) -> str:
    """A table for the screen: a row each, accuracy and ECE in percent.

    Args:
        rows: Name of the row -> what ``figures_of`` returns.

    Returns:
        Lines of text.

    Example:
        >>> print(table_of({"test": {"accuracy": 0.5, "ece": 0.1, "nll": 1.0, "brier": 0.25}}))
                  accuracy %     ECE %       NLL     Brier
        test           50.00     10.00    1.0000    0.2500
    """
    width = max(8, *(len(name) for name in rows))
    lines = [f"{'':<{width}}  accuracy %     ECE %       NLL     Brier"]
    for name, row in rows.items():
        lines.append(
            f"{name:<{width}}{100 * row['accuracy']:>12.2f}{100 * row['ece']:>10.2f}"
            f"{row['nll']:>10.4f}{row['brier']:>10.4f}"
        )
    return "\n".join(lines)


def versions() -> dict[str, str]:
    """Versions of what computed the figures."""
    return {
        "keras_autolabel": kal.__version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": importlib.metadata.version(keras.Model.__module__.partition(".")[0]),
        "numpy": np.__version__,
    }


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


def reason_of(error: tf.errors.OpError) -> str:
    """The one line of a TensorFlow error that says what happened.

    Args:
        error: An error of the runtime, whose text is about the graph for the most part.

    Returns:
        What an assertion said, or else the last line that names no node of the graph.

    Example:
        >>> reason_of(tf.errors.OpError(None, None, "At node:\\nno space left\\n[[{{node a}}", 8))
        'no space left'
    """
    lines = [line.strip() for line in str(error.message).splitlines()]
    lines = [line for line in lines if line and "{{node" not in line]
    asserted = [line for line in lines if "assertion failed" in line]
    return (asserted or lines or [type(error).__name__])[-1]
