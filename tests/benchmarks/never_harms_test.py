"""What is asked of learned labels, by numbers of one's own, and the command that tables it."""

import dataclasses
import importlib.util
import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from benchmarks.harm import Compared, kept, table_of, tally_of
from tests.train import made_up
from train import comparison
from train.comparison_job import PREDICTIONS

FIXED = {
    "accuracy": np.array([80.0, 82.0, 84.0]),
    "ece_debiased": np.array([4.0, 5.0, 6.0]),
    "cece_debiased": np.array([9.0, 10.0, 11.0]),
    "aurc": np.array([2.0, 2.0, 2.0]),
    "robust": np.array([50.0, 50.0, 50.0]),
}
SCALED = {**FIXED, "cece_debiased": np.array([8.0, 8.0, 8.0])}
# Lower by 30 % and below the temperature's, all else as with fixed labels.
OURS = {**FIXED, "cece_debiased": np.array([7.0, 7.0, 7.0])}


@pytest.mark.parametrize(
    ("figure", "added", "failed"),
    [
        # Means of 1/3 and 1/2; s/√3 of (1, 0, 0) is 1/3, of (1, 1/2, 0) it is 1/(2√3).
        ("ece_debiased", [1.0, 0.0, 0.0], ()),
        ("ece_debiased", [1.0, 0.5, 0.0], ("ECE",)),
        ("aurc", [0.0, 0.3, 0.0], ()),
        ("aurc", [0.1, 0.1, 0.1], ("AURC",)),
        ("accuracy", [-1.5, 0.0, 0.0], ()),
        ("accuracy", [-1.5, -0.03, 0.0], ("accuracy",)),
        ("robust", [-3.0, 0.0, 0.0], ()),
        ("robust", [-3.0, -0.03, 0.0], ("PGD",)),
        ("cece_debiased", [0.03, 0.0, 0.0], ("cECE as asked",)),
        ("cece_debiased", [3.03, 0.0, 0.0], ("cECE as asked", "cECE below the temperature's")),
        ("cece_debiased", [0.0, 0.0, 0.0], ()),
    ],
)
def test_what_is_asked(figure, added, failed):
    ours = {**OURS, figure: OURS[figure] + added}
    asked = kept(ours, FIXED, SCALED, cece_falls=0.3)
    assert tuple(what for what, is_kept in asked.items() if not is_kept) == failed
    short = kept(ours, FIXED, SCALED, cece_falls=None)
    assert set(asked) - set(short) == {"cECE as asked", "cECE below the temperature's"}


def test_tables_by_hand():
    falls = {**OURS, "ece_debiased": np.array([1.0, 1.0, 4.0])}
    worse = {**OURS, "accuracy": np.array([79.0, 81.0, 83.0])}
    cell = Compared("a cell", "one-hot", FIXED, SCALED, {"paper": falls, "together": worse}, 0.3)
    # Of networks that were not attacked, and from which no fall is asked.
    plain, scaled, ours = ({**x, "robust": None} for x in (FIXED, SCALED, OURS))
    for row in (plain, scaled, ours):
        del row["robust"]
    short = Compared("short", "mixup's", plain, scaled, {"paper": ours, "together": ours}, None)
    # The differences of ECE are -3, -4 and -2: s = 1, and 1/√3 = 0.577.
    assert table_of([cell, short])[2:] == [
        "| a cell | one-hot | 82.0 | 5.00 | 10.00 | 2.00 | 50.0 |  |",
        "|  | one-hot + temperature | 82.0 | 5.00 | 8.00 | 2.00 | 50.0 |  |",
        "|  | paper | 82.0 (+0.0 ± 0.0) | 2.00 (−3.00 ± 0.58) | 7.00 (−3.00 ± 0.58), −30 % | "
        "2.00 (+0.00 ± 0.00) | 50.0 (+0.0 ± 0.0) | nothing |",
        "|  | together | 81.0 (−1.0 ± 0.0) | 5.00 (+0.00 ± 0.00) | 7.00 (−3.00 ± 0.58), −30 % | "
        "2.00 (+0.00 ± 0.00) | 50.0 (+0.0 ± 0.0) | accuracy |",
        "| short | mixup's | 82.0 | 5.00 | 10.00 | 2.00 |  |  |",
        "|  | mixup's + temperature | 82.0 | 5.00 | 8.00 | 2.00 |  |  |",
        *(
            f"|  | {update} | 82.0 (+0.0 ± 0.0) | 5.00 (+0.00 ± 0.00) | "
            "7.00 (−3.00 ± 0.58), −30 % | 2.00 (+0.00 ± 0.00) |  | nothing |"
            for update in ("paper", "together")
        ),
    ]
    assert tally_of([short, cell]) == [
        "| labels | ECE | accuracy | AURC | PGD | cECE as asked | cECE below the temperature's |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| paper | 2 of 2 | 2 of 2 | 2 of 2 | 1 of 1 | 1 of 1 | 1 of 1 |",
        "| together | 2 of 2 | 1 of 2 | 2 of 2 | 1 of 1 | 1 of 1 | 1 of 1 |",
    ]


@pytest.fixture(scope="module", name="ended")
def fixture_ended(run_commands, tmp_path_factory):
    """Name -> what a command printed, over a folder with two cells that were never trained."""
    folder = tmp_path_factory.mktemp("cells")
    there = folder / "digits-short-augmix"
    made_up.make(there, ("augmix", "augmix_autolabel", "augmix_together"), (0, 1, 2))
    # What the documentation says of this cell.
    settings = dataclasses.replace(
        made_up.PLAN.settings,
        epochs=12,
        l2=1e-4,
        train_examples=1000,
        holdout_examples=400,
    )
    plan = dataclasses.replace(
        made_up.PLAN,
        settings=settings,
        corruptions="ovadia17",
        severities=(1, 3, 5),
        test_attack_epsilons=(0.01, 0.02, 0.03),
        test_attack_steps=20,
        test_attack_examples=500,
    )
    (there / comparison.PLAN).write_text(json.dumps(dataclasses.asdict(plan)), "utf-8")
    shutil.rmtree(there / comparison.CORRUPTED)
    other = folder / "digits-end-augmix"
    made_up.make(other, ("augmix", "augmix_autolabel", "augmix_together"), (0, 1))
    binary = ["benchmarks.never_harms", f"--output_dir={folder}"]
    digits = [*binary, "--sets=digits", "--augmentations=augmix"]
    commands = {
        "there": [*digits, "--regimes=short"],
        "another": digits,
        "table": [*digits, "--notrain", "--regimes=end,short"],
        "nothing": [*digits, "--notrain", "--augmentations=pgd"],
        "unknown": [*binary, "--sets=digits,letters"],
        "missing": [*binary, f"--photographs={folder / 'none'}"],
    }
    results = run_commands(list(commands.values()), tmp_path_factory.mktemp("printed"))
    return folder, dict(zip(commands, results, strict=True))


def test_cells_that_are_done_are_tabled(ended):
    folder, results = ended
    assert results["there"].status == 0, results["there"].stderr[-2000:]
    accuracy = []
    for seed in (0, 1, 2):
        job = folder / "digits-short-augmix" / "jobs" / f"augmix_together-seed{seed}"
        with np.load(job / PREDICTIONS) as arrays:
            correct = arrays["none/0/correct"]
        accuracy.append(100.0 * accuracy_score(np.ones(len(correct)), correct))
    (row,) = [x for x in results["there"].stdout.splitlines() if x.startswith("|  | together")]
    assert row.startswith(f"|  | together | {np.mean(accuracy):.1f} (")
    # Of the 17 types grey images have no saturation to change, and frost may not be installed.
    sets = 3 * (16 if importlib.util.find_spec("imagecorruptions") else 15)
    facts = f"digits: made up; 9 training, 9 hold-out, 400 test images; {sets} corrupted sets, "
    assert facts in results["there"].stdout
    assert (folder / "digits-short-augmix" / "report.html").exists()


def test_a_table_without_training_says_what_is_missing(ended):
    _, results = ended
    assert "| digits, 60 epochs, AugMix, **2 seeds** | one-hot |" in results["table"].stdout
    assert "| digits, 12 epochs, AugMix | one-hot |" in results["table"].stdout
    assert results["nothing"].stdout == ""
    for epochs in (60, 12):
        missing = f"Not there, with two seeds or more: digits, {epochs} epochs, PGD"
        assert missing in results["nothing"].stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("another", "epochs: 4 there, 60 asked for"),
        ("unknown", "--sets must be out of digits, fashion2000"),
        ("missing", "none"),
    ],
)
def test_mistakes_are_refused_before_any_work(ended, name, words):
    folder, results = ended
    assert results[name].status == 1
    last = results[name].stderr.strip().splitlines()[-1]
    assert last.startswith("benchmarks.never_harms: ")
    assert words in last
    assert not (folder / "photographs-end-augmix").exists()
