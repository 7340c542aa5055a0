"""Rounds, ratios and rows of benchmarks, with clocks that are wound by hand."""

import pathlib
import types

import numpy as np
import pytest

from benchmarks import rounds


@pytest.fixture(name="flags")
def fixture_flags(monkeypatch):
    values = {"rounds": 3, "seed": 0, "cores": 1, "tiny": False, "output_dir": None}
    monkeypatch.setattr(rounds, "FLAGS", types.SimpleNamespace(**values))


def test_ways_take_turns_and_are_compared_round_by_round(flags, monkeypatch):
    now, order = [0.0], []
    monkeypatch.setitem(rounds.CLOCKS, "processor", lambda: now[0])

    def way(name, seconds):
        def run():
            order.append(name)
            now[0] += seconds.pop(0)
            return 2

        return rounds.Way(name, lambda: run, lambda run: f"{name}!")

    # The first call and a second one warm up.
    ours, other = way("ours", [9, 9, 1, 2, 4]), way("other", [9, 9, 3, 2, 2])
    missing = rounds.Way("missing", lambda: __import__("no_such_package"))
    results = rounds.measure(rounds.Case("work", [ours, other, missing], units=5))
    assert order == ["ours"] * 2 + ["other"] * 2 + ["ours", "other"] * 3
    # Each call does it twice, for five units.
    assert results[0]["seconds"] == [0.1, 0.2, 0.4]
    assert results[1]["ratios"] == pytest.approx([3.0, 1.0, 0.5])
    assert results[2]["error"] == "ModuleNotFoundError: No module named 'no_such_package'"
    results[0]["first_seconds"] = results[1]["first_seconds"] = 9.0
    assert [rounds.table_row(row) for row in results] == [
        "| work | ours | 200 ms / image | 1 (1 to 1) | 9.0 s | ours! |",
        "| work | other | 200 ms / image | 1 (0.5 to 3) | 9.0 s | other! |",
        "| work | missing | | | | does not run: ModuleNotFoundError: No module named "
        "'no_such_package' |",
    ]


def test_what_is_quick_is_repeated(flags):
    now = [0.0]

    def run():
        now[0] += rounds.LEAST_SECONDS / 4

    assert rounds.seconds_of(run, lambda: now[0]) == pytest.approx(rounds.LEAST_SECONDS / 4)
    assert now[0] == pytest.approx(rounds.LEAST_SECONDS)


@pytest.mark.skipif(not pathlib.Path("/proc/self/clear_refs").exists(), reason="Linux counts")
@pytest.mark.parametrize("megabytes", [80, 160])
def test_memory_is_that_of_the_peak_which_is_gone_in_the_end(megabytes):
    def run():
        np.ones(megabytes * 10**6, np.uint8)
        np.ones(40 * 10**6, np.uint8)

    run()
    assert rounds.peak_megabytes(run) == pytest.approx(megabytes, abs=8)
