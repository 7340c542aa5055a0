import csv
import json
import math

import numpy as np
import pytest
from scipy import stats

from keras_autolabel.calibration import debiased_ece
from tests.train import made_up
from train.comparison_findings import findings_of
from train.comparison_paper import tables_of
from train.comparison_statistics import (
    Difference,
    Predicted,
    Result,
    image_error,
    paired_difference,
    resampled_debiased,
    summary_of,
)
from train.comparison_tables import Measured, all_methods, differences
from train.methods import GROUPS, METHODS

SEEDS = (3, 4, 5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder and its jobs: vanilla, AugMix and mixup, three seeds."""
    folder = tmp_path_factory.mktemp("made") / "up"
    return folder, made_up.make(folder, GROUPS["quick"], SEEDS)


@pytest.fixture(scope="module")
def measured(made):
    folder, jobs = made
    return Measured([Result.read(str(folder), job) for job in jobs])


def numpy_ece(confidence, correct, num_bins=15) -> tuple[float, float]:
    """ECE and its floor bin by bin, as their definitions say."""
    ece = floor = 0.0
    index = np.minimum(np.floor(confidence * num_bins), num_bins - 1)
    for number in range(num_bins):
        here = index == number
        c = confidence[here].astype(np.float64)
        ece += abs(correct[here].sum() - c.sum()) / len(confidence)
        floor += math.sqrt(2.0 / math.pi * (c * (1.0 - c)).sum()) / len(confidence)
    return ece, floor


def test_the_table_of_all_methods_from_the_files_with_numpy_alone(made, measured):
    folder, _ = made
    table = all_methods(measured)
    assert [row[0].text for row in table.rows] == [METHODS[m].title for m in GROUPS["quick"]]
    for method, row in zip(GROUPS["quick"], table.rows, strict=True):
        by_seed = []
        for seed in SEEDS:
            arrays = np.load(folder / "jobs" / f"{method}-seed{seed}" / "predictions.npz")
            of_sets = {}
            for key in arrays:
                corruption, severity, what = key.split("/")
                if what == "correct":
                    confidence = arrays[f"{corruption}/{severity}/confidence"][0]
                    correct = arrays[key]
                    ece, floor = numpy_ece(confidence, correct)
                    of_sets[corruption, severity] = [
                        correct.mean(),
                        ece,
                        floor,
                        math.sqrt(max(ece**2 - floor**2, 0.0)),
                        confidence.astype(np.float64).mean() - correct.mean(),
                    ]
            clean = of_sets.pop(("none", "0"))
            by_seed.append([*clean, *np.mean(list(of_sets.values()), axis=0)])
        mean = 100 * np.mean(by_seed, axis=0)
        error = 100 * np.std(by_seed, axis=0, ddof=1) / math.sqrt(len(SEEDS))
        expected = [
            f"{m:.2f} ± {e:.2f}".replace("-", "−") for m, e in zip(mean, error, strict=True)
        ]
        # Those of the floors have no error.
        for place in (2, 7):
            expected[place] = expected[place].partition(" ")[0]
        assert [cell.text for cell in row[1:]] == expected


def test_the_best_of_a_column_is_marked(measured):
    table = all_methods(measured)
    for column, better in ((1, max), (2, min), (4, min)):
        values = [row[column].value for row in table.rows]
        assert [row[column].best for row in table.rows] == [
            round(value, 4) == round(better(values), 4) for value in values
        ]
    # No floor is better than another, and a gap is best next to 0, from either side.
    assert not any(row[3].best for row in table.rows)
    gaps = [abs(row[5].value) for row in table.rows]
    assert [row[5].best for row in table.rows].index(True) == gaps.index(min(gaps))


def test_mean_and_standard_error_by_hand():
    # Deviations −2, 0, 2: s² = 8 / 2 = 4, s/√3.
    summary = summary_of([1.0, 3.0, 5.0])
    assert summary.mean == 3.0 and summary.error == pytest.approx(2.0 / math.sqrt(3.0))
    assert math.isnan(summary_of([1.0]).error)


def test_paired_difference_is_that_of_scipy():
    ours, theirs = {1: 0.5, 2: 0.9, 3: 0.4, 9: 7.0}, {1: 0.2, 2: 0.5, 3: 0.3, 8: 1.0}
    found = paired_difference(ours, theirs)
    expected = stats.ttest_rel([0.5, 0.9, 0.4], [0.2, 0.5, 0.3]).confidence_interval(0.95)
    assert found.count == 3
    assert found[1:3] == pytest.approx((expected.low, expected.high))
    assert not found.is_clear and Difference(-0.2, -0.3, -0.1, 3).is_clear
    with pytest.raises(ValueError, match="no seed of both"):
        paired_difference({1: 0.0}, {2: 0.0})


def test_differences_are_of_the_figures(measured):
    table = differences(measured)
    first = table.rows[0]
    assert first[0].text == "AugMix + AutoLabel − AugMix"
    ours, theirs = (
        measured.values((method, "none"), "accuracy") for method in ("augmix_autolabel", "augmix")
    )
    assert first[1].value == pytest.approx(np.mean([ours[s] - theirs[s] for s in SEEDS]))


def test_resampling_every_image_once_takes_twice_the_floor_off():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1.0, 200).astype(np.float32)
    correct = rng.uniform(size=200) < confidence - 0.25
    ece, floor = numpy_ece(confidence, correct)
    found = resampled_debiased([Predicted("fog", 1, confidence, correct)], np.ones([1, 200]), 15)
    assert found[0] == pytest.approx(math.sqrt(ece**2 - 2.0 * floor**2), rel=1e-5)
    # Only the first image, 200 times: its bin alone has a gap.
    weights = np.zeros([1, 200])
    weights[0, 0] = 200.0
    alone = abs(float(correct[0]) - float(confidence[0]))
    found = resampled_debiased([Predicted("fog", 1, confidence, correct)], weights, 15)
    assert found[0] == pytest.approx(math.sqrt(max(alone**2 - 2.0 * floor**2, 0.0)), rel=1e-5)


def test_the_error_from_test_images_is_the_spread_over_test_sets():
    """The bootstrap of one test set against many test sets of the same two networks."""

    def networks(seed):
        rng = np.random.default_rng(seed)
        likely, lucks = rng.uniform(0.2, 0.7, 1000), rng.uniform(size=[2, 1000])
        return [
            [[Predicted("fog", 1, (likely + excess).astype(np.float32), luck < likely)]]
            for excess, luck in zip((0.3, 0.25), lucks, strict=True)
        ]

    found = image_error(*networks(0), 15)
    drawn = [
        np.subtract(*(debiased_ece(*sets[0][0][2:]) for sets in networks([1, seed])))
        for seed in range(200)
    ]
    # The standard deviation of 200 draws is itself off by 5 %, that of one test set by more.
    assert found == pytest.approx(np.std(drawn), rel=0.25)


def test_the_report_says_what_its_figures_say(made, measured):
    folder, _ = made
    finding, tables = findings_of(measured)[0], tables_of(measured)
    table = next(table for table in tables if table.name == "methods")
    cells = {row[0].text: row for row in table.rows}
    for title in ("AugMix", "AugMix + AutoLabel"):
        assert f"{100 * cells[title][9].value:.1f}" in finding.details()
    assert finding.title() == "AugMix + AutoLabel against AugMix"
    # AugMix is number 2 and AutoLabel with it number 3; seeds add 3, 4 and 5 to 10 s.
    assert finding.cost == pytest.approx(17.0 / 16.0)
    costs = next(table for table in tables if table.name == "costs")
    seconds = [
        json.loads((folder / "jobs" / f"augmix-seed{seed}" / "job.json").read_text())["seconds"]
        for seed in SEEDS
    ]
    assert costs.rows[1][1].value == np.mean(seconds)


def test_the_label_curves_are_those_of_the_history(made, measured):
    folder, _ = made
    from train.comparison_figures import learned_labels

    tables = learned_labels(measured, "augmix_autolabel")
    assert tables.shape == (len(SEEDS), made_up.EPOCHS, 3, 5)
    path = folder / "jobs" / "augmix_autolabel-seed4" / "history.csv"
    with path.open(newline="") as file:
        row = list(csv.DictReader(file))[2]
    assert tables[1, 2, 1, 3] == float(row["label_confidence_1_3"])
    assert learned_labels(measured, "augmix") is None
