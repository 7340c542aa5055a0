"""What is asked of learned labels beside fixed ones, and tables that say whether they keep it."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from train.comparison_statistics import summary_of

# Of each figure the digits that are shown; of networks that were not attacked the last is missing.
DIGITS = {"accuracy": 1, "ece_debiased": 2, "cece_debiased": 2, "aurc": 2, "robust": 1}

Figures = Mapping[str, np.ndarray]


class Compared(NamedTuple):
    """A cell: networks that were trained alike but for their labels.

    Attributes:
        title: What they were trained on, and how.
        labels: How the fixed labels are called.
        fixed: Figure -> float [seeds] in percent, with fixed labels.
        scaled: Likewise, with a temperature besides.
        learned: Update -> likewise, with learned labels.
        cece_falls: The share by which cECE must fall; None where nothing is asked of it.
    """

    title: str
    labels: str
    fixed: Figures
    scaled: Figures
    learned: Mapping[str, Figures]
    cece_falls: float | None


def kept(
    ours: Figures, fixed: Figures, scaled: Figures, *, cece_falls: float | None
) -> dict[str, bool]:
    """What is asked of learned labels -> whether they keep it.

    - ECE, AURC: higher by no more than one standard error of the difference, seed by seed.
    - Accuracy: lower by no more than 0.5 points, under PGD by no more than 1.
    - cECE: lower by the share ``cece_falls``, and lower than with a temperature.

    Args:
        ours: Figure -> float [seeds] in percent, of learned labels.
        fixed: Likewise, of fixed labels with the same seeds.
        scaled: Likewise, of fixed labels with a temperature.
        cece_falls: As in ``Compared``.

    Example:
        >>> fixed = {name: np.array([10.0, 12.0]) for name in DIGITS}
        >>> ours = {**fixed, "ece_debiased": np.array([13.0, 13.0])}  # by 2 ± 1
        >>> kept(ours, fixed, fixed, cece_falls=None)
        {'ECE': False, 'accuracy': True, 'AURC': True, 'PGD': True}
    """
    difference = {name: summary_of(ours[name] - fixed[name]) for name in ours}

    def is_no_higher(name: str) -> bool:
        mean, error, _ = difference[name]
        # Where one seed of several differs, the two are the same number but for rounding.
        return mean <= error * (1.0 + 1e-4)

    asked = {
        "ECE": is_no_higher("ece_debiased"),
        "accuracy": difference["accuracy"].mean >= -0.5,
        "AURC": is_no_higher("aurc"),
    }
    if "robust" in ours:
        asked["PGD"] = difference["robust"].mean >= -1.0
    if cece_falls is not None:
        cece = ours["cece_debiased"].mean()
        asked["cECE as asked"] = cece <= (1.0 - cece_falls) * fixed["cece_debiased"].mean()
        asked["cECE below the temperature's"] = cece < scaled["cece_debiased"].mean()
    return asked


def shown(value: float, digits: int, sign: str = "") -> str:
    """A number with a proper minus.

    Example:
        >>> shown(-0.251, 1, "+"), shown(2.0, 0)
        ('−0.3', '2')
    """
    return f"{value:{sign}.{digits}f}".replace("-", "−")


def table_of(cells: Sequence[Compared]) -> list[str]:
    """The cells in Markdown: means over seeds, and what each update fails to keep.

    In brackets stands the difference to fixed labels ± its standard error; behind the cECE, by
    which share it changes.
    """
    lines = [
        "| cell | labels | accuracy | ECE | cECE | AURC | under PGD | what it fails |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for cell in cells:
        means = [_means(row) for row in (cell.fixed, cell.scaled)]
        lines.append(_line(cell.title, cell.labels, means[0]))
        lines.append(_line("", f"{cell.labels} + temperature", means[1]))
        for update, ours in cell.learned.items():
            texts = {
                name: f"{text} ({_difference(name, ours[name] - cell.fixed[name])})"
                for name, text in _means(ours).items()
            }
            share = ours["cece_debiased"].mean() / cell.fixed["cece_debiased"].mean() - 1.0
            texts["cece_debiased"] += f", {shown(100.0 * share, 0, '+')} %"
            asked = kept(ours, cell.fixed, cell.scaled, cece_falls=cell.cece_falls)
            failed = ", ".join(what for what, is_kept in asked.items() if not is_kept)
            lines.append(_line("", update, texts, failed or "nothing"))
    return lines


def _means(row: Figures) -> dict[str, str]:
    return {name: shown(values.mean(), DIGITS[name]) for name, values in row.items()}


def _difference(name: str, values: np.ndarray) -> str:
    mean, error, _ = summary_of(values)
    return f"{shown(mean, DIGITS[name], '+')} ± {shown(error, DIGITS[name])}"


def _line(title: str, labels: str, texts: Mapping[str, str], failed: str = "") -> str:
    return f"| {' | '.join([title, labels, *(texts.get(name, '') for name in DIGITS), failed])} |"


def tally_of(cells: Sequence[Compared]) -> list[str]:
    """In how many cells each update keeps what is asked, in Markdown."""
    tally: dict[str, dict[str, list[bool]]] = {}
    for cell in cells:
        for update, ours in cell.learned.items():
            asked = kept(ours, cell.fixed, cell.scaled, cece_falls=cell.cece_falls)
            for what, is_kept in asked.items():
                tally.setdefault(update, {}).setdefault(what, []).append(is_kept)
    columns = list(dict.fromkeys(itertools.chain(*tally.values())))
    lines = [f"| labels | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for update, asked in tally.items():
        texts = [f"{sum(asked[what])} of {len(asked[what])}" for what in columns]
        lines.append(f"| {update} | {' | '.join(texts)} |")
    return lines
