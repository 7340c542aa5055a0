import numpy as np
import pytest

from benchmarks.updates import callback_of, shown, table_of
from data.splits import Split

PART = Split(np.zeros([4, 8, 8, 1], np.uint8), np.array([0, 1, 2, 3]))


@pytest.mark.parametrize(
    ("update", "examples", "debias"),
    [("all", None, False), ("auto", "auto", False), ("200", 200, False), ("50-debias", 50, True)],
)
def test_updates_are_named(update, examples, debias):
    callback = callback_of(update, PART)
    assert (callback.examples_per_bucket, callback.debias) == (examples, debias)


@pytest.mark.parametrize("update", ["none", "all-bias", "-debias", "-5", "1.5"])
def test_other_names_are_refused(update):
    with pytest.raises(ValueError, match=f"'{update}'"):
        callback_of(update, PART)


def test_table_by_hand():
    def labels(*last):
        # Six epochs: the last five moves are 0, 0, 0, 0 and what leads to the last row.
        return np.array([[0.5, 0.5]] * 6 + [list(last)])

    figures = [0.1, 0.2, 0.3, 0.4]
    seeds = [
        {"all": (labels(0.6, 0.8), figures), "200": (labels(0.7, 0.6), figures)},
        {"all": (labels(0.6, 0.5), figures), "200": (labels(0.6, 0.4), figures)},
    ]
    between, rows = table_of(seeds)
    # |0.6 - 0.6| and |0.8 - 0.5|.
    assert between == pytest.approx(0.15)
    # Moves of the first seed: (0.1 + 0.3)/2/5 and (0.2 + 0.1)/2/5.
    np.testing.assert_allclose(rows["all"][:2], [[0.0, 0.0], [0.04, 0.01]], atol=1e-12)
    np.testing.assert_allclose(rows["200"][:2], [[0.15, 0.05], [0.03, 0.02]], atol=1e-12)
    np.testing.assert_allclose(rows["200"][2:], np.transpose([figures, figures]))
    # The standard error of 0.15 and 0.05 is |0.15 - 0.05|/2.
    assert shown(rows["200"][0], 100.0, 1) == "10.0 ± 5.0"
    assert shown(rows["200"][0][:1], 1.0, 2) == "0.15"
