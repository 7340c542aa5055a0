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


def table_of(rows: dict[str, dict[str, float]]) -> str:
    """A table for the screen: a row each; all but NLL and Brier score in percent.

    Args:
        rows: Name of the row -> what ``figures_of`` returns.

    Returns:
        Lines of text.

    Example:
        >>> row = {"accuracy": 0.5, "ece": 0.1, "ece_floor": 0.06, "ece_debiased": 0.08}
        >>> print(table_of({"test": {**row, "gap": -0.1, "nll": 1.0, "brier": 0.25}}))
                  accuracy %   ECE %   floor  debiased     gap     NLL   Brier
        test           50.00   10.00    6.00      8.00  -10.00  1.0000  0.2500
    """
    columns = {
        "accuracy %": "accuracy",
        "ECE %": "ece",
        "floor": "ece_floor",
        "debiased": "ece_debiased",
        "gap": "gap",
    }
    table = _percent(rows, columns)
    table[0] += "     NLL   Brier"
    for number, row in enumerate(rows.values(), start=1):
        table[number] += f"{row['nll']:>8.4f}{row['brier']:>8.4f}"
    return "\n".join(table)


def means_of(rows: dict[str, dict[str, float]]) -> str:
    """A table for the screen: a row each, means over corruptions in percent.

    Args:
        rows: Name of the row -> what ``mean_over_corruptions`` returns.

    Returns:
        Lines of text.

    Example:
        >>> row = {"cacc": 0.5, "cece": 0.1, "cece_floor": 0.06, "cece_debiased": 0.08}
        >>> print(means_of({"test": {**row, "cgap": -0.05, "cgap_size": 0.075}}))
                  cAcc %  cECE %   floor  debiased     gap   |gap|
        test       50.00   10.00    6.00      8.00   -5.00    7.50
    """
    columns = {
        "cAcc %": "cacc",
        "cECE %": "cece",
        "floor": "cece_floor",
        "debiased": "cece_debiased",
        "gap": "cgap",
        "|gap|": "cgap_size",
    }
    return "\n".join(_percent(rows, columns))


def _percent(rows: dict[str, dict[str, float]], columns: dict[str, str]) -> list[str]:
    """Lines of a table: names to the left, figures in percent below their headings."""
    width = max(8, *(len(name) for name in rows))
    widths = {heading: max(8, len(heading) + 2) for heading in columns}
    lines = [" " * width + "".join(f"{heading:>{widths[heading]}}" for heading in columns)]
    for name, row in rows.items():
        values = (f"{100 * row[key]:>{widths[heading]}.2f}" for heading, key in columns.items())
        lines.append(f"{name:<{width}}" + "".join(values))
    return lines


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
            print(means_of(means))
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
        """Writes ``evaluation.json``, ``evaluation.csv`` and ``figures/``.

        Args:
            folder: Where to write; it is made if need be.
        """
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
