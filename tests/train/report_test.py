import sys

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import accuracy_score, log_loss
from tensorflow import keras

import keras_autolabel as kal
from tests.conftest import numpy_calibration, numpy_softmax
from train.evaluation import Scores, figures_of
from train.report import MEAN_COLUMNS, table_of, versions


def _predictions(examples=257, classes=5, scale=3.0):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, examples)
    logits = scale * rng.normal(size=(examples, classes))
    logits[np.arange(examples), labels] += 2.0
    return labels, logits.astype(np.float32)


@pytest.mark.parametrize("num_bins", [7, 15])
def test_figures_are_those_of_scikit_learn_and_numpy(num_bins):
    labels, logits = _predictions()
    probabilities = numpy_softmax(logits.astype(np.float64))
    figures = figures_of(labels, logits, num_bins=num_bins)
    names = ["examples", "accuracy", "ece", "ece_floor", "ece_debiased", "gap", "nll", "brier"]
    assert list(figures) == [*names, "aurc", "e_aurc"]
    assert figures["examples"] == 257
    assert figures["accuracy"] == accuracy_score(labels, logits.argmax(axis=-1))
    assert figures["nll"] == pytest.approx(log_loss(labels, probabilities), rel=1e-9)
    one_hot = np.arange(5) == labels[:, np.newaxis]
    brier = ((probabilities - one_hot) ** 2).sum(axis=-1).mean()
    assert figures["brier"] == pytest.approx(brier, rel=1e-9)
    ece, conf, acc = numpy_calibration(labels, probabilities, num_bins)
    assert figures["ece"] == pytest.approx(ece, abs=1e-6)
    assert figures["gap"] == pytest.approx(conf - acc, abs=1e-9)
    # What is expected of |correct - confidence| summed in a bin, were the confidences true.
    confidence, right = probabilities.max(axis=-1), probabilities.argmax(axis=-1) == labels
    bins = (confidence * num_bins).astype(int)
    floor = sum(
        np.sqrt(2 / np.pi * (confidence * (1 - confidence))[bins == r].sum()) for r in set(bins)
    )
    assert figures["ece_floor"] == pytest.approx(floor / 257, rel=1e-9)
    debiased = np.sqrt(ece**2 - (floor / 257) ** 2)
    assert figures["ece_debiased"] == pytest.approx(debiased, rel=1e-6)
    # Mean error of the surest k, less that of an order with all errors last.
    surest_first = right[np.argsort(-confidence)]
    aurc, best = (
        np.mean(np.cumsum(~x) / np.arange(1, 258)) for x in (surest_first, np.sort(right)[::-1])
    )
    assert figures["aurc"] == pytest.approx(aurc, rel=1e-9)
    assert figures["e_aurc"] == pytest.approx(aurc - best, rel=1e-9)
    assert 0.3 < figures["accuracy"] < 0.7 and figures["ece"] > 0.02


def test_figures_of_three_examples_by_hand():
    # Confidences 0.8 right, 0.6 wrong (truth 0.4), 0.6 right; with two bins all lie in the upper.
    # The two of 0.6 are in no order, so that the second has half an error: (0 + 1/4 + 1/3) / 3.
    logits = np.log([[0.8, 0.2], [0.6, 0.4], [0.4, 0.6]])
    figures = figures_of(np.array([0, 1, 1]), logits, num_bins=2)
    assert figures["accuracy"] == pytest.approx(2 / 3)
    assert figures["ece"] == pytest.approx(abs(2.0 - 2.0) / 3, abs=1e-6)
    assert figures["nll"] == pytest.approx(-np.log(0.8 * 0.4 * 0.6) / 3)
    assert figures["brier"] == pytest.approx(2 * (0.2**2 + 0.6**2 + 0.4**2) / 3)
    assert figures["gap"] == pytest.approx(0.0)
    floor = np.sqrt(2 / np.pi * (0.8 * 0.2 + 2 * 0.6 * 0.4)) / 3
    assert figures["ece_floor"] == pytest.approx(floor) and figures["ece_debiased"] == 0.0
    assert figures["aurc"] == pytest.approx((1 / 4 + 1 / 3) / 3)
    assert figures["e_aurc"] == pytest.approx(1 / 4 / 3)
    # Five bins: 0.8 begins the last, 0.6 the one before. |1 - 0.8| + |1 - 1.2| = 0.4.
    assert figures_of(np.array([0, 1, 1]), logits, num_bins=5)["ece"] == pytest.approx(0.4 / 3)


@pytest.mark.parametrize("batch", [1, 50, 256])
def test_batches_give_what_all_at_once_gives(batch):
    labels, logits = _predictions()
    scores = Scores(15)
    for start in range(0, len(labels), batch):
        scores.add(labels[start : start + batch], logits[start : start + batch])
    assert scores.figures() == pytest.approx(figures_of(labels, logits), abs=1e-6)
    assert scores.sums()[:, 0].sum() == len(labels)


def test_large_logits_stay_finite():
    logits = np.array([[1e4, 0.0], [1e4, 0.0]], np.float32)
    figures = figures_of(np.array([0, 1]), logits)
    assert figures["nll"] == 5e3
    assert figures["brier"] == 1.0
    assert figures["ece"] == pytest.approx(0.5)


def test_logits_that_are_not_finite_give_figures_that_are_not():
    figures = figures_of(np.array([0, 1]), np.array([[np.nan, np.nan], [1.0, 0.0]]))
    undefined = {name for name, figure in figures.items() if np.isnan(figure)}
    assert undefined == set(figures) - {"examples", "accuracy"}


ROW = {"accuracy": 0.98765, "ece": 0.01234, "ece_floor": 0.00567, "ece_debiased": 0.01096}
ROW |= {"gap": -0.00123, "nll": 0.5, "brier": 0.25, "examples": 3}


def test_table_shows_percent_and_fits_the_longest_name():
    lines = table_of({"test": ROW, "a name of 20 letters": ROW}).splitlines()
    assert lines == [
        "                      accuracy %   ECE %   floor  debiased     gap     NLL   Brier",
        "test                       98.77    1.23    0.57      1.10   -0.12  0.5000  0.2500",
        "a name of 20 letters       98.77    1.23    0.57      1.10   -0.12  0.5000  0.2500",
    ]


def test_means_show_percent_too():
    row = {f"c{name}": ROW[name] for name in ("ece", "ece_floor", "ece_debiased", "gap")}
    lines = table_of({"test": row | {"cacc": 0.5, "cgap_size": 0.02}}, MEAN_COLUMNS).splitlines()
    assert lines == [
        "          cAcc %  cECE %   floor  debiased     gap   |gap|",
        "test       50.00    1.23    0.57      1.10   -0.12    2.00",
    ]


def test_versions_are_those_of_the_packages():
    named = versions()
    assert named["keras_autolabel"] == kal.__version__
    assert named["tensorflow"] == tf.__version__
    assert named["python"] == ".".join(map(str, sys.version_info[:3]))
    assert named["numpy"] == np.__version__
    assert named["keras"].split(".")[0] == ("3" if hasattr(keras, "ops") else "2")
