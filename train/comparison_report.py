"""The report of a comparison: ``report.html``, which needs no other file, and ``report.md``."""

import dataclasses
import math
import os
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence

import jinja2

from train import comparison, comparison_figures, run_folder
from train.comparison import Job, Plan
from train.comparison_figures import Drawn
from train.comparison_statistics import NORMAL_95, Difference, Result, image_error
from train.comparison_statistics import paired_difference as paired_difference
from train.comparison_tables import COLUMNS, Cell, Measured, Table, seconds_of, tables_of
from train.methods import METHODS

# A space at which no line is broken.
NARROW = "\u202f"
TEMPLATES = pathlib.Path(__file__).parent / "templates"


@dataclasses.dataclass(frozen=True)
class Finding:
    """What learned labels changed under one augmentation.

    Attributes:
        method: The method with learned labels.
        rival: The same with ordinary labels.
        ours: Its debiased cECE, mean over seeds.
        theirs: That of the rival.
        seeds: The paired difference over seeds.
        images: Half the 95 % interval of the difference from the choice of test images.
        same_way: Of how many seeds the difference has the sign of the mean.
        accuracy: Difference of the clean accuracy, mean over seeds.
        corrupted_accuracy: That of cAcc.
        cost: Training time as a multiple of the rival's.
        with_temperature: cECE of the rival with the temperature of the clean and of the augmented
            hold-out.
    """

    method: str
    rival: str
    ours: float
    theirs: float
    seeds: Difference
    images: float
    same_way: int
    accuracy: float
    corrupted_accuracy: float
    cost: float
    with_temperature: tuple[float, float]

    @property
    def ratio(self) -> float:
        """Our figure as a multiple of theirs."""
        return self.ours / self.theirs if self.theirs else math.inf

    def title(self) -> str:
        """What is held against what."""
        return f"{METHODS[self.method].title} against {METHODS[self.rival].title}"

    def change(self) -> str:
        """From where to where, in points and by which share."""
        return (
            f"{100 * self.theirs:.1f} → {100 * self.ours:.1f} points with "
            f"{METHODS[self.rival].title} ({_share(self)})"
        )

    def verdict(self) -> str:
        """Whether it is more than noise."""
        if abs(self.ours - self.theirs) <= self.images:
            return "within the noise of the test images"
        if self.seeds.count == 1:
            return "more than the choice of test images explains; one seed says nothing of others"
        if self.seeds.is_clear:
            return "more than noise, over test images and over seeds"
        if self.same_way == self.seeds.count:
            return (
                "more than the choice of test images explains, and the same way with each of "
                f"{self.seeds.count} seeds, which are too few to say how others would scatter"
            )
        return "more than the choice of test images explains, but within the noise between seeds"

    def details(self) -> str:
        """By how much, and at what cost."""
        low, high = (100 * (self.ours - self.theirs + sign * self.images) for sign in (-1.0, 1.0))
        over_seeds = f", {_points(self.seeds.low)} to {_points(self.seeds.high)} over seeds"
        clean, augmented = (f"{100 * x:.1f}" for x in self.with_temperature)
        return (
            f"Calibration error on corrupted images {100 * self.ours:.1f} instead of "
            f"{100 * self.theirs:.1f} points; 95 % interval of the difference {_signed(low)} to "
            f"{_signed(high)} over test images{over_seeds if self.seeds.count > 1 else ''}. "
            f"Accuracy {_points(self.accuracy)} points on clean, "
            f"{_points(self.corrupted_accuracy)} on corrupted images. Training time × "
            f"{self.cost:.2f}. A temperature brings {METHODS[self.rival].title} to {clean}, one "
            f"fitted on the augmented hold-out to {augmented}."
        )


def _share(finding: Finding) -> str:
    if not math.isfinite(finding.ratio):
        return "from 0"
    return f"{100 * (finding.ratio - 1.0):+.0f}{NARROW}%".replace("-", "−")


def _span(texts: Sequence[str]) -> str:
    """The first and the last, or one where they read the same."""
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def _signed(points: float) -> str:
    return f"{points:+.1f}".replace("-", "−")


def _points(share: float) -> str:
    return _signed(100 * share)


def findings_of(measured: Measured) -> list[Finding]:
    """A ``Finding`` for each method with learned labels whose rival is there."""
    findings = []
    for method, rival in measured.pairs():
        rows = (method, "none"), (rival, "none")
        differences = {
            name: paired_difference(*(measured.values(row, name) for row in rows))
            for name in ("cdebiased", "accuracy", "caccuracy")
        }
        seeds = sorted(measured.results[method].keys() & measured.results[rival].keys())
        sets = [
            [measured.results[name][seed].predictions["none"][1:] for seed in seeds]
            for name in (method, rival)
        ]
        ours, theirs = (
            math.fsum(measured.values(row, "cdebiased")[seed] for seed in seeds) / len(seeds)
            for row in rows
        )
        values = [measured.values(row, "cdebiased") for row in rows]
        signs = [(values[0][seed] - values[1][seed]) * (ours - theirs) > 0 for seed in seeds]
        temperatures = [
            measured.summary((rival, name), "cdebiased").mean
            for name in ("clean_holdout", "augmented_holdout")
        ]
        num_bins = measured.results[method][seeds[0]].num_bins
        findings.append(
            Finding(
                method=method,
                rival=rival,
                ours=ours,
                theirs=theirs,
                seeds=differences["cdebiased"],
                images=NORMAL_95 * image_error(*sets, num_bins),
                same_way=sum(signs),
                accuracy=differences["accuracy"].mean,
                corrupted_accuracy=differences["caccuracy"].mean,
                cost=seconds_of(measured, method).mean / seconds_of(measured, rival).mean,
                with_temperature=tuple(temperatures),
            )
        )
    return findings


def headline(findings: Sequence[Finding], measured: Measured) -> str:
    """The one sentence that a reader in a hurry reads."""
    if not findings:
        best = min(
            measured.methods, key=lambda name: measured.summary((name, "none"), "cdebiased").mean
        )
        return (
            "No method with learned labels stands beside its rival here; the smallest calibration "
            f"error on corrupted images is that of {METHODS[best].title}."
        )
    less = [finding for finding in findings if finding.ours < finding.theirs]
    if len(findings) <= 2:
        what = "; ".join(finding.change() for finding in findings)
    else:
        shares = [_share(finding) for finding in sorted(findings, key=lambda f: f.ratio)]
        what = f"smaller for {len(less)} of {len(findings)} augmentations, {_span(shares)}"
    clear = sum(abs(finding.ours - finding.theirs) > finding.images for finding in findings)
    noise = (
        f"in {clear} of {len(findings)} cases that is more than the choice of test images explains"
    )
    if len(findings) == 1:
        noise = f"that is {'more than' if clear else 'within'} the noise of the test images"
    accuracy = _span([_points(x) for x in sorted(f.corrupted_accuracy for f in findings)])
    cost = _span([f"{x:.1f}" for x in sorted(finding.cost for finding in findings)])
    after = sum(min(f.with_temperature) < f.ours for f in findings)
    instead = f"A temperature alone gets lower still in {after} of {len(findings)}."
    if len(findings) <= 2:
        values = " and ".join(f"{100 * min(f.with_temperature):.1f}" for f in findings)
        instead = f"Ordinary labels with a temperature, fitted after training, get to {values}."
    return (
        f"Calibration error on corrupted images, with learned labels in place of ordinary ones: "
        f"{what}; {noise}. Accuracy there {accuracy} points, training time ×{NARROW}{cost}. "
        f"{instead}"
    )


@dataclasses.dataclass(frozen=True)
class Report:
    """What both pages show.

    Attributes:
        headline: A sentence.
        findings: What learned labels changed, pair by pair.
        overview: The picture that goes with it.
        tables: All tables.
        figures: All other figures.
        facts: Name -> what there is to know of data, settings, versions.
        commands: What was run, and how a single run is looked at.
        failed: Job -> why it failed.
        columns: The figures that stand in tables.
    """

    headline: str
    findings: list[Finding]
    overview: Drawn
    tables: list[Table]
    figures: list[Drawn]
    facts: dict[str, str]
    commands: list[str]
    failed: Mapping[Job, str]
    columns: Mapping[str, tuple[str, str, str]]


def facts_of(plan: Plan, measured: Measured, manifest: dict) -> dict[str, str]:
    """Data, settings and versions, for the end of a report."""
    results = [result for seeds in measured.results.values() for result in seeds.values()]
    content = results[0].content
    counts = content["data"]
    corrupted = (
        f"{len(manifest['corruptions'])} types of corruption at severities "
        f"{', '.join(map(str, manifest['severities']))} of {manifest['examples']:,} test images, "
        f"seed {manifest['seed']}: {', '.join(manifest['corruptions'])}. Generated by this "
        "package from the test images; no published set."
    )
    if manifest["skipped"]:
        corrupted += " Skipped: " + "; ".join(
            f"{name} ({reason})" for name, reason in manifest["skipped"].items()
        )
    facts = {
        "Data": f"{counts['name']}: {counts['source']}",
        "Images": f"{counts['train']:,} training, {counts['holdout']:,} hold-out, "
        f"{counts['test']:,} test",
        "Corrupted images": corrupted,
        "Seeds": ", ".join(map(str, measured.seeds)),
        "Network": f"{plan.settings.network}, {content['parameters']:,} parameters",
        "Training": f"{plan.settings.epochs} epochs, batch {plan.settings.batch_size}, L2 penalty "
        f"{plan.settings.l2:g}, learning rate {plan.settings.learning_rate:g} "
        f"({plan.settings.schedule})",
        "Learned labels": f"{plan.settings.num_buckets} buckets, step size "
        f"{plan.settings.step_size:g}, "
        f"{plan.settings.examples_per_bucket or 'all'} hold-out images a bucket and epoch",
        "ECE": f"{plan.settings.num_bins} bins of equal width",
        "Threads of a job": ", ".join(sorted({str(r.content["threads"]) for r in results})),
        "Versions": "; ".join(
            sorted(
                {", ".join(f"{k} {v}" for k, v in r.content["versions"].items()) for r in results}
            )
        ),
    }
    if any(result.content["robust_accuracy"] for result in results):
        facts["Attacks"] = (
            f"PGD, {plan.test_attack_steps} steps of ε/4, {plan.test_attack_restarts} restarts, "
            f"{plan.test_attack_examples:,} test images"
        )
    return facts


def report_of(folder: str, jobs: Sequence[Job], failed: Mapping[Job, str]) -> Report:
    """A report out of the files of jobs that are done.

    Args:
        folder: The folder of the comparison.
        jobs: Jobs that are done.
        failed: Jobs that are not, and why.

    Returns:
        The ``Report``.
    """
    plan = Plan.read(folder)
    measured = Measured([Result.read(folder, job) for job in jobs])
    manifest = run_folder.read_json(os.path.join(folder, comparison.CORRUPTED, "manifest.json"))
    findings = findings_of(measured)
    overview = comparison_figures.draw(
        "overview",
        "At a glance",
        "On corrupted images: how far confidence is off (debiased; less is better), and how often "
        "the network is right (more is better); mean and standard error over seeds.",
        comparison_figures.plot_overview,
        measured,
    )
    first = jobs[0].folder(folder)
    return Report(
        headline=headline(findings, measured),
        findings=findings,
        overview=overview,
        tables=tables_of(measured),
        figures=comparison_figures.figures_of(measured, folder),
        facts=facts_of(plan, measured, manifest),
        commands=[
            "python -m train.compare " + shlex.join(sys.argv[1:]),
            f"python -m train.evaluate --model={first}",
        ],
        failed=failed,
        columns=COLUMNS,
    )


def markdown_of(report: Report) -> str:
    """The report as Markdown, whose pictures are in ``figures/``."""
    parts = [f"# {report.headline}", ""]
    parts += [f"- **{f.title()}**: {f.verdict()}. {f.details()}" for f in report.findings]
    parts += ["", _picture(report.overview)]
    parts += [f"**{job} failed:** {reason}\n" for job, reason in report.failed.items()]
    for table in report.tables:
        parts += [f"## {table.title}", "", table.note, "", _rows(table), ""]
    parts += ["## Figures", ""] + [_picture(figure) for figure in report.figures]
    parts += ["## What the columns mean", ""]
    parts += [f"- {title}: {meaning}." for title, _, meaning in report.columns.values()]
    parts += ["", "## How it was made", ""]
    parts += [f"- {name}: {fact}" for name, fact in report.facts.items()]
    parts += ["", "```bash", *report.commands, "```", ""]
    return "\n".join(parts)


def _picture(figure: Drawn) -> str:
    return f"**{figure.title}.** {figure.caption}\n\n![{figure.title}](figures/{figure.name}.svg)\n"


def _rows(table: Table) -> str:
    def line(texts):
        return f"| {' | '.join(texts)} |"

    rule = ["---", *["---:"] * (len(table.heads) - 1)]
    rows = [[_bold(cell) for cell in row] for row in table.rows]
    return "\n".join(map(line, [table.heads, rule, *rows]))


def _bold(cell: Cell) -> str:
    return f"**{cell.text}**" if cell.best else cell.text


def html_of(report: Report) -> str:
    """The report as one page that loads nothing."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        report=report, colours=comparison_figures.COLOURS
    )


def write(folder: str, jobs: Sequence[Job], failed: Mapping[Job, str]) -> None:
    """Writes ``report.html``, ``report.md`` and ``figures/`` into the folder of a comparison.

    Args:
        folder: The folder of the comparison.
        jobs: Jobs that are done.
        failed: Jobs that are not, and why.
    """
    report = report_of(folder, jobs, failed)
    here = pathlib.Path(folder)
    (here / "figures").mkdir(exist_ok=True)
    for figure in (report.overview, *report.figures):
        # Alone, a picture has no page around it whose colours it could take.
        svg = figure.svg.replace("currentColor", "#30343b").replace(
            "<svg ", '<svg style="background: #fff" ', 1
        )
        (here / "figures" / f"{figure.name}.svg").write_text(svg, "utf-8")
    (here / "report.md").write_text(markdown_of(report), "utf-8")
    (here / "report.html").write_text(html_of(report), "utf-8")
