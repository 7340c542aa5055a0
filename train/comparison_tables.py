"""The tables of a comparison: what stands in them, for any page that shows them."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from train.comparison_job import TEMPERATURES
from train.comparison_statistics import (
    Difference,
    Result,
    Summary,
    figures_of,
    paired_difference,
    summary_of,
)
from train.methods import METHODS

# What rows add to the name of a method.
OF_TEMPERATURE = dict(
    zip(TEMPERATURES, ("", " + temperature", " + temperature, augmented hold-out"), strict=True)
)
# Seed -> name of the figure -> its value.
Figures = Mapping[int, Mapping[str, float]]


class Column(NamedTuple):
    """A figure that stands in tables, in percent.

    Attributes:
        title: Its head.
        better: ``"high"``, ``"low"``, ``"zero"``; ``""``: neither.
        meaning: What it is.
    """

    title: str
    better: str
    meaning: str


COLUMNS = {
    "accuracy": Column("Acc", "high", "accuracy on the clean test images"),
    "ece": Column("ECE", "low", "expected calibration error on them"),
    "ece_floor": Column("floor", "", "the ECE of a perfectly calibrated network on as many images"),
    "ece_debiased": Column("ECE, debiased", "low", "√max(ECE² − floor², 0)"),
    "gap": Column("Conf − Acc", "zero", "above 0: surer than right"),
    "cacc": Column("cAcc", "high", "accuracy, mean over the corrupted sets"),
    "cece": Column("cECE", "low", "ECE, mean over the corrupted sets"),
    "cece_floor": Column("c-floor", "", "floor, mean over the corrupted sets"),
    "cece_debiased": Column("cECE, debiased", "low", "debiased ECE, mean over the corrupted sets"),
    "cgap": Column("cConf − cAcc", "zero", "mean over the corrupted sets"),
    "aurc": Column(
        "AURC", "low", "area under the risk-coverage curve: errors among the surest, clean images"
    ),
    "e_aurc": Column("E-AURC", "low", "AURC above that of the best order: ranking alone"),
}


class Cell(NamedTuple):
    """A cell: its text, what it is sorted by, whether it is the best of its column."""

    text: str
    value: float | str
    best: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        name: Its anchor.
        title: What it shows.
        note: How to read it.
        heads: Heads of the columns, that of the rows' names first.
        rows: Rows of cells, the name first.
        methods: The method of each row, for its colour.
    """

    name: str
    title: str
    note: str
    heads: list[str]
    rows: list[list[Cell]]
    methods: list[str]

    def coloured_rows(self) -> list[tuple[str, list[Cell]]]:
        """Each row with the method whose colour it has."""
        return list(zip(self.methods, self.rows, strict=True))


class Measured:
    """The figures of a comparison by method and temperature.

    Args:
        results: The jobs that are done.

    Attributes:
        results: As given, by method and seed.
        figures: ``(method, temperature)`` -> seed -> figures.
        methods: The methods, in the order of ``METHODS``.
        seeds: All seeds, ascending.
    """

    def __init__(self, results: Sequence[Result]):
        done = {result.job.method for result in results}
        self.methods = [method for method in METHODS if method in done]
        self.seeds = sorted({result.job.seed for result in results})
        self.results: dict[str, dict[int, Result]] = {method: {} for method in self.methods}
        self.figures: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
        for result in results:
            method, seed = result.job
            self.results[method][seed] = result
            for name, sets in result.predictions.items():
                of_row = self.figures.setdefault((method, name), {})
                of_row[seed] = figures_of(sets, result.num_bins)

    def values(self, row: tuple[str, str], figure: str) -> dict[int, float]:
        """A figure of a method at a temperature by seed."""
        return {seed: figures[figure] for seed, figures in self.figures[row].items()}

    def summary(self, row: tuple[str, str], figure: str) -> Summary:
        """Its mean and standard error."""
        return summary_of(list(self.values(row, figure).values()))

    def difference(self, row: tuple[str, str], other: tuple[str, str], figure: str) -> Difference:
        """By how much a figure is larger in one row than in another."""
        return paired_difference(self.values(row, figure), self.values(other, figure))

    def pairs(self) -> list[tuple[str, str]]:
        """Methods with learned labels, each with its rival, if both are there with one seed."""
        return [
            (method, METHODS[method].rival)
            for method in self.methods
            if METHODS[method].rival in self.methods
            and self.results[method].keys() & self.results[METHODS[method].rival].keys()
        ]


def percent(summary: Summary, digits: int = 2) -> str:
    """A mean and its standard error in percent.

    Example:
        >>> percent(Summary(0.5, 0.0125, 3)), percent(Summary(0.5, float("nan"), 1))
        ('50.00 ± 1.25', '50.00')
    """
    error = "" if math.isnan(summary.error) else f" ± {100 * summary.error:.{digits}f}"
    return f"{100 * summary.mean:.{digits}f}{error}".replace("-", "−")


def interval(difference: Difference, digits: int = 2) -> str:
    """A difference and its interval in percentage points.

    Example:
        >>> interval(Difference(-0.02, -0.03, -0.01, 4))
        '−2.00 [−3.00, −1.00]'
    """
    values = [100 * x for x in difference[:3]]
    if difference.count == 1:
        values = values[:1]
    mean, *ends = (f"{x:+.{digits}f}".replace("-", "−") for x in values)
    return f"{mean} [{', '.join(ends)}]" if ends else mean


def title_of(row: tuple[str, str]) -> str:
    """The name of a row: its method, and the temperature if there is one."""
    method, temperature = row
    return METHODS[method].title + OF_TEMPERATURE[temperature]


def figures_table(
    measured: Measured,
    rows: Sequence[tuple[str, str]],
    figures: Sequence[str],
    *,
    name: str,
    title: str,
    note: str,
) -> Table:
    """Rows of methods, columns of figures, the best of each column marked."""
    columns = [COLUMNS[figure] for figure in figures]
    summaries = {
        title_of(row): [measured.summary(row, figure) for figure in figures] for row in rows
    }
    cells = _marked(summaries, [column.better for column in columns])
    arrows = {"high": " ↑", "low": " ↓", "zero": " →\u00a00", "": ""}
    heads = ["Method", *(column.title + arrows[column.better] for column in columns)]
    return Table(name, title, note, heads, cells, [method for method, _ in rows])


def _marked(
    rows: Mapping[str, Sequence[Summary]], better: Sequence[str], digits: int = 2
) -> list[list[Cell]]:
    """Rows of names and summaries, the best of each column marked."""
    columns = zip(zip(*rows.values(), strict=True), better, strict=True)
    best = [_best([summary.mean for summary in column], way) for column, way in columns]
    # A floor depends on little but the number of images: its error says nothing.
    errors = [{} if way else {"error": math.nan} for way in better]
    return [
        [Cell(name, name)]
        + [
            Cell(percent(summary._replace(**errors[i]), digits), summary.mean, place in best[i])
            for i, summary in enumerate(summaries)
        ]
        for place, (name, summaries) in enumerate(rows.items())
    ]


def _best(values: Sequence[float], better: str) -> set[int]:
    if not better or len(values) < 2:
        return set()
    scores = [{"high": -x, "low": x, "zero": abs(x)}[better] for x in values]
    # As they are shown: what reads the same is equally good.
    shown = [round(score, 4) for score in scores]
    return {place for place, score in enumerate(shown) if score == min(shown)}


def all_methods(measured: Measured) -> Table:
    """Every network as it was trained."""
    return figures_table(
        measured,
        [(method, "none") for method in measured.methods],
        ["accuracy", "ece", "ece_floor", "ece_debiased", "gap"]
        + ["cacc", "cece", "cece_floor", "cece_debiased", "cgap"],
        name="methods",
        title="All methods, as trained",
        note="Mean ± standard error over seeds, in percent; the best of a column in bold.",
    )


def temperatures(measured: Measured) -> Table:
    """What one number, fitted after training, does instead."""
    return figures_table(
        measured,
        [(method, name) for method in measured.methods for name in TEMPERATURES],
        ["ece", "ece_debiased", "gap", "cece", "cece_debiased", "cgap", "aurc", "e_aurc"],
        name="temperatures",
        title="With a temperature, fitted after training",
        note="In percent. A temperature divides all logits by one number, fitted on the clean "
        "hold-out or on the hold-out as the method's augmentation moves it (AugMix where there is "
        "none; Tomani et al., 2021). It changes no prediction, and so no accuracy. AURC and E-AURC "
        "say how "
        "well confidence ranks right before wrong.",
    )


def differences(measured: Measured) -> Table | None:
    """Learned labels against ordinary ones and against a temperature, pair by pair of seeds."""
    figures = ["accuracy", "ece_debiased", "cacc", "cece_debiased", "cece", "aurc"]
    rows, methods = [], []
    for method, rival in measured.pairs():
        for name in TEMPERATURES:
            text = f"{METHODS[method].title} − {title_of((rival, name))}"
            row = [Cell(text, text)]
            for figure in figures:
                difference = measured.difference((method, "none"), (rival, name), figure)
                row.append(Cell(interval(difference), difference.mean, difference.is_clear))
            rows.append(row)
            methods.append(method)
    if not rows:
        return None
    return Table(
        "differences",
        "Learned labels against their rivals",
        "Mean of the paired differences over the same seeds, in percentage points, with the 95 % "
        "interval by Student's t; bold where 0 lies outside. With few seeds it is wide: ± 12.7 "
        "standard errors of two, 3.2 of four.",
        ["Difference", *(COLUMNS[figure].title for figure in figures)],
        rows,
        methods,
    )


def attacks(measured: Measured) -> Table | None:
    """Accuracy under attack."""
    robust = robust_accuracies(measured)
    if not robust:
        return None
    epsilons = list(next(iter(robust.values())))
    summaries = {METHODS[m].title: [of[e] for e in epsilons] for m, of in robust.items()}
    rows = _marked(summaries, ["high"] * len(epsilons), digits=1)
    heads = ["Method", *(f"ε = {e:g}" if e else "no attack" for e in epsilons)]
    note = "Accuracy of the same images without and under an attack by PGD, in percent."
    return Table("attacks", "Accuracy under attack", note, heads, rows, list(robust))


def robust_accuracies(measured: Measured) -> dict[str, dict[float, Summary]]:
    """Method -> ε -> accuracy under attack, of methods that were attacked."""
    robust = {}
    for method in measured.methods:
        of_seeds = [r.content["robust_accuracy"] for r in measured.results[method].values()]
        of_seeds = [by_epsilon for by_epsilon in of_seeds if by_epsilon]
        if of_seeds:
            robust[method] = {
                float(e): summary_of([by_epsilon[e] for by_epsilon in of_seeds])
                for e in of_seeds[0]
            }
    return robust


def seconds_of(measured: Measured, method: str, key: str = "seconds") -> Summary:
    """Wall time of a method, mean over seeds."""
    return summary_of([result.content[key] for result in measured.results[method].values()])


def costs(measured: Measured) -> Table:
    """What each method took."""
    base = seconds_of(measured, measured.methods[0]).mean
    rows = []
    for method in measured.methods:
        trained, rest = (
            seconds_of(measured, method, key) for key in ("seconds", "seconds_to_measure")
        )
        error = "" if math.isnan(trained.error) else f" ± {trained.error:.1f}"
        rows.append(
            [
                Cell(METHODS[method].title, METHODS[method].title),
                Cell(f"{trained.mean:.1f}{error}", trained.mean),
                Cell(f"{trained.mean / base:.2f}", trained.mean / base),
                Cell(f"{rest.mean:.1f}", rest.mean),
            ]
        )
    return Table(
        "costs",
        "What it costs",
        "Wall time on the machine of this comparison, which may have done other work at the same "
        "time; compilation is part of it.",
        ["Method", "training, s", f"× {METHODS[measured.methods[0]].title}", "measuring, s"],
        rows,
        list(measured.methods),
    )
