import numpy as np
import pytest

from keras_autolabel.ranking import aurc, e_aurc, risk_coverage


def test_risk_is_the_share_of_errors_among_the_surest():
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(200), rng.random(200) < 0.7
    coverage, risk = risk_coverage(confidence, correct)
    for k in (1, 2, 50, 200):
        surest = np.argsort(-confidence)[:k]
        assert coverage[k - 1] == k / 200
        assert risk[k - 1] == pytest.approx(1.0 - correct[surest].mean())
    # The threshold that keeps the surest k.
    assert risk[-1] == pytest.approx(1.0 - correct.mean())


def test_area_equals_that_of_uncertainty_calibration():
    """Version 0.1.4, get_selective_stats: the area under the accuracy of the surest."""
    number = np.arange(2000)
    confidence = 0.3 + 0.7 * ((number * (np.sqrt(5) - 1) / 2) % 1)
    share = confidence + 0.15 * np.sin(12 * confidence) - 0.03
    correct = (number * np.sqrt(2)) % 1 < share
    assert aurc(confidence, correct) == pytest.approx(0.2599133199569126, rel=1e-12)


def test_equal_confidences_count_as_the_mean_over_their_orders():
    confidence = np.array([0.9, 0.5, 0.5, 0.5, 0.2])
    correct = np.array([1, 0, 1, 1, 0])
    rng = np.random.default_rng(0)
    areas = [aurc(confidence + 1e-6 * rng.random(5), correct) for _ in range(20_000)]
    assert aurc(confidence, correct) == pytest.approx(np.mean(areas), abs=2e-3)
    _, risk = risk_coverage(np.full(5, 0.5), correct)
    np.testing.assert_allclose(risk, np.full(5, 0.4))


def test_excess_is_0_in_the_best_order_and_does_not_depend_on_accuracy():
    for errors in (0, 300, 1000):
        correct = np.arange(1000) >= errors
        confidence = (1.0 + np.arange(1000)) / 1001
        assert e_aurc(confidence, correct) == 0.0
        # Geifman et al. (2019) give the best area in the limit of many examples.
        r = errors / 1000
        limit = r + (1 - r) * np.log(1 - r) if errors < 1000 else 1.0
        assert aurc(confidence, correct) == pytest.approx(limit, abs=1e-3)
        # Confidence that says nothing has the area r, the worst order more.
        assert aurc(np.full(1000, 0.5), correct) == pytest.approx(r)
        assert e_aurc(np.full(1000, 0.5), correct) == pytest.approx(r - limit, abs=1e-3)
    # Surest where wrong; by hand, risks 1, 1/2; best 0, 1/2.
    assert e_aurc([0.9, 0.6], [0, 1]) == 0.5


def test_nan_and_other_than_pairs():
    assert np.isnan(aurc([np.nan, 0.5], [1, 0])) and np.isnan(e_aurc([np.nan, 0.5], [1, 0]))
    with pytest.raises(ValueError, match="1.5"):
        risk_coverage([1.5, 0.5], [1, 0])
