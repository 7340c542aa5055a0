"""What several workers cannot do is refused before they start; tests/faults/ has what they do."""

import importlib.util

import pytest
from tensorflow import keras

from tests.train.conftest import flags_of_fit
from train import cluster, fit
from train.settings import Settings


@pytest.fixture
def installed(monkeypatch) -> set[str]:
    """The packages that look as if they were installed."""
    names = {"ray", "tf_keras"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in names else None)
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    return names


def test_a_batch_that_workers_can_share_is_taken(installed):
    cluster.check(Settings(batch_size=96), 3)


@pytest.mark.parametrize(
    ("options", "workers", "named"),
    [
        ({"batch_size": 128}, 3, "--batch_size=128 .*--workers=3.* multiple of 3"),
        ({"augmentation": "mixup", "batch_size": 2}, 2, "Mixup .*at least 2 .*would hold 1"),
    ],
)
def test_a_batch_that_workers_cannot_share_is_refused(installed, options, workers, named):
    with pytest.raises(ValueError, match=named):
        cluster.check(Settings(**options), workers)


def test_what_is_not_installed_is_named_with_its_extra(installed):
    installed.remove("ray")
    with pytest.raises(ImportError, match=r"--workers=2 needs ray: .*\[train,cluster\]"):
        cluster.check(Settings(), 2)


@pytest.mark.skipif(not hasattr(keras, "ops"), reason="Keras 2 needs no other")
def test_keras_3_is_refused_where_it_is_forced(installed, monkeypatch):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    with pytest.raises(ValueError, match="--workers=2 .*unset .*Received: TF_USE_LEGACY_KERAS=0"):
        cluster.check(Settings(), 2)
    monkeypatch.delenv("TF_USE_LEGACY_KERAS")
    installed.remove("tf_keras")
    with pytest.raises(ImportError, match="needs tf_keras: "):
        cluster.check(Settings(), 2)


@pytest.mark.parametrize("flag", ["--ray_address=auto", "--max_failures=1"])
def test_flags_of_workers_are_refused_where_there_is_one(flag):
    name = flag.partition("=")[0]
    with flags_of_fit(flag), pytest.raises(ValueError, match=f"{name} has no effect"):
        fit.check_workers(Settings())


def test_what_a_worker_died_of_is_one_line():
    class Failed(Exception):
        worker_failures = {
            1: RuntimeError("Traceback:\nUnavailableError: a peer is gone"),
            0: RuntimeError("Traceback:\n  work()\nValueError: Training has diverged; lower it."),
        }

    assert cluster.line_of(Failed()) == "Training has diverged; lower it."
    assert cluster.line_of(RuntimeError("no controller\nis left")) == "is left"
