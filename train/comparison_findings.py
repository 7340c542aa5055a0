"""What a comparison found, in words: how much learned labels changed, and whether it is noise."""

import dataclasses
import math
from collections.abc import Sequence

from train.comparison_job import TEMPERATURES
from train.comparison_statistics import NORMAL_95, Difference, image_error
from train.comparison_tables import Measured, seconds_of
from train.methods import METHODS

# A space at which no line is broken.
NARROW = "\u202f"


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
    return [_finding(measured, method, rival) for method, rival in measured.pairs()]


def _finding(measured: Measured, method: str, rival: str) -> Finding:
    rows = (method, "none"), (rival, "none")
    ours, theirs = (measured.values(row, "cece_debiased") for row in rows)
    seeds = sorted(ours.keys() & theirs.keys())

    def mean(values):
        return math.fsum(values[seed] for seed in seeds) / len(seeds)

    difference = measured.difference(*rows, "cece_debiased")
    sets = [
        [measured.results[name][seed].predictions["none"][1:] for seed in seeds]
        for name in (method, rival)
    ]
    num_bins = measured.results[method][seeds[0]].num_bins
    temperatures = (measured.values((rival, name), "cece_debiased") for name in TEMPERATURES[1:])
    return Finding(
        method=method,
        rival=rival,
        ours=mean(ours),
        theirs=mean(theirs),
        seeds=difference,
        images=NORMAL_95 * image_error(*sets, num_bins),
        same_way=sum((ours[seed] - theirs[seed]) * difference.mean > 0 for seed in seeds),
        accuracy=measured.difference(*rows, "accuracy").mean,
        corrupted_accuracy=measured.difference(*rows, "cacc").mean,
        cost=seconds_of(measured, method).mean / seconds_of(measured, rival).mean,
        with_temperature=tuple(map(mean, temperatures)),
    )


def headline(findings: Sequence[Finding], measured: Measured) -> str:
    """The one sentence that a reader in a hurry reads."""
    if not findings:
        best = min(
            measured.methods,
            key=lambda name: measured.summary((name, "none"), "cece_debiased").mean,
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
