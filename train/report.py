"""What was found, on the screen, in files and in figures."""

import dataclasses
import importlib.metadata
import os
import platform

import numpy as np
import tensorflow as tf
from tensorflow import keras

import data
import keras_autolabel as kal
from keras_autolabel import plots
from train.evaluation import Row, figures_of_rows
from train.run_folder import write_csv, write_json

LEGEND = (
    "floor: the ECE that a calibrated classifier shows on so many images; debiased: the\n"
    "ECE without it; gap: confidence - accuracy, above 0 where too sure"
)


# Heading -> name of the figure, what it is multiplied by, decimals.
Columns = dict[str, tuple[str, int, int]]
CLEAN_COLUMNS: Columns = {
    "accuracy %": ("accuracy", 100, 2),
    "ECE %": ("ece", 100, 2),
    "floor": ("ece_floor", 100, 2),
    "debiased": ("ece_debiased", 100, 2),
    "gap": ("gap", 100, 2),
    "NLL": ("nll", 1, 4),
    "Brier": ("brier", 1, 4),
}
# Means over corruptions.
MEAN_COLUMNS: Columns = {
    "cAcc %": ("cacc", 100, 2),
    "cECE %": ("cece", 100, 2),
    "floor": ("cece_floor", 100, 2),
    "debiased": ("cece_debiased", 100, 2),
    "gap": ("cgap", 100, 2),
    "|gap|": ("cgap_size", 100, 2),
}


def table_of(rows: dict[str, dict[str, float]], columns: Columns = CLEAN_COLUMNS) -> str:
    """A table for the screen: names to the left, figures below their headings.

    Example:
        >>> row = {"accuracy": 0.5, "ece": 0.1, "ece_floor": 0.06, "ece_debiased": 0.08}
        >>> print(table_of({"test": {**row, "gap": -0.1, "nll": 1.0, "brier": 0.25}}))
                  accuracy %   ECE %   floor  debiased     gap     NLL   Brier
        test           50.00   10.00    6.00      8.00  -10.00  1.0000  0.2500
    """
    width = max(8, *(len(name) for name in rows))
    widths = [max(8, len(heading) + 2) for heading in columns]
    headings = (f"{heading:>{size}}" for heading, size in zip(columns, widths, strict=True))
    lines = [" " * width + "".join(headings)]
    for name, row in rows.items():
        values = (
            f"{factor * row[key]:>{size}.{digits}f}"
            for (key, factor, digits), size in zip(columns.values(), widths, strict=True)
        )
        lines.append(f"{name:<{width}}" + "".join(values))
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


@dataclasses.dataclass(frozen=True)
class Report:
    """What was measured, on what.

    Attributes:
        splits: The clean data; the figures are of its test images.
        holdout: Name of the model -> images of the hold-out that a temperature was fitted on.
        corrupted: What ``evaluation.describe_corrupted`` says of the corrupted set; None: none.
        rows: The rows of all models, for each the clean ones first.
        sums: Name of the model -> the bins of its reliability diagram.
        robust: Name of the model -> ε -> accuracy under attack, 0.0 for none; empty if none was
            asked for.
        attack: ``steps``, ``restarts``, ``relative_step_size``, ``loss``, ``examples`` and
            ``seed`` of the attacks; None: none.
    """

    splits: data.Splits
    holdout: dict[str, int]
    corrupted: dict[str, str | int | None] | None
    rows: list[Row]
    sums: dict[str, np.ndarray]
    robust: dict[str, dict[float, float]]
    attack: dict[str, str | float] | None

    def means(self) -> dict[str, dict[str, float]]:
        """``figures_of_rows`` of each model at each temperature."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(f"{row.model}, T = {row.temperature:.3f}", []).append(row)
        return {name: figures_of_rows(group) for name, group in groups.items()}

    def show(self) -> None:
        """Prints all but the figures of each corruption."""
        splits, means = self.splits, self.means()
        print(f"\n{splits.name} ({splits.source}), {len(splits.test):,} test images")
        for name, size in self.holdout.items():
            print(f"{name}: a temperature was fitted on {size:,} hold-out images")
        print(table_of(means))
        print(LEGEND)
        if self.corrupted:
            seed = self.corrupted["seed"]
            seed = "" if seed is None else f"; seed {seed}"
            print(f"\n{self.corrupted['name']}{seed}; means over types and severities")
            print(table_of(means, MEAN_COLUMNS))
        for name, by_epsilon in self.robust.items():
            for epsilon, accuracy in by_epsilon.items():
                attack = (
                    f"under PGD, ε = {epsilon:g}, {_counted(self.attack['steps'], 'step')}, "
                    f"{_counted(self.attack['restarts'], 'restart')}, {self.attack['loss']}"
                )
                print(
                    f"{name}  accuracy {100 * accuracy:.2f} "
                    f"{attack if epsilon else 'without an attack'}, "
                    f"{_counted(self.attack['examples'], 'image')}, seed {self.attack['seed']}"
                )

    def write(self, folder: str) -> None:
        """Writes ``evaluation.json``, ``evaluation.csv`` and ``figures/``."""
        os.makedirs(os.path.join(folder, "figures"), exist_ok=True)
        flat = [{**vars(row), **row.figures} for row in self.rows]
        for row in flat:
            del row["figures"]
        write_csv(os.path.join(folder, "evaluation.csv"), flat)
        content = {
            "data": {
                "name": self.splits.name,
                "source": self.splits.source,
                "test": len(self.splits.test),
                "holdout": self.holdout,
            },
            "corrupted": self.corrupted,
            "rows": flat,
            "means": self.means(),
            "robust_accuracy": self.robust,
            "attack": self.attack,
            "versions": versions(),
        }
        write_json(os.path.join(folder, "evaluation.json"), content)
        self._draw(os.path.join(folder, "figures"))

    def _draw(self, folder: str) -> None:
        for number, (name, sums) in enumerate(self.sums.items()):
            figure = plots.plot_reliability_of_sums(sums)
            figure.savefig(os.path.join(folder, f"reliability_{number}.png"), dpi=120)
            print(f"reliability_{number}.png: {name}")
        if self.corrupted:
            by_model = {
                name: [
                    (row.corruption, row.severity, row.figures["ece"])
                    for row in self.rows
                    if row.model == name and row.temperature == 1.0
                ]
                for name in self.sums
            }
            figure = plots.plot_ece_by_severity(by_model)
            figure.savefig(os.path.join(folder, "ece_by_severity.png"), dpi=120)
        if self.attack:
            figure = plots.plot_accuracy_by_epsilon(self.robust)
            figure.savefig(os.path.join(folder, "accuracy_by_epsilon.png"), dpi=120)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
