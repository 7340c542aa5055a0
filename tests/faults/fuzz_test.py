"""Everything that reads files, given thousands of damaged ones, and a few that are hostile.

``FUZZ_CASES=10000 pytest -m faults tests/faults/fuzz_test.py`` for as many; 500 by default. What
each reader must do is in ``fuzzing``: a right answer, or one line that names the file.
"""

import json
import os
import pickle
import zipfile
from collections.abc import Iterator

import numpy as np
import pytest
from tensorflow import keras

from data import corrupted_sets
from tests.conftest import Run, command_server
from tests.faults.fuzzing import A_JOB, READERS, a_model, make_corrupted, make_job, unzip, zipped
from train import comparison_job, comparison_statistics
from train.predictor import Predictor

pytestmark = pytest.mark.faults

CASES = int(os.environ.get("FUZZ_CASES", "500"))


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """In processes of their own: libraries in C may end one, or use up its memory."""
    with command_server() as run:
        yield run


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused_in_one_line(run, tmp_path, name):
    command = ["tests.faults.fuzzing", name, str(tmp_path), "0", str(-(-CASES // len(READERS)))]
    (ended,) = run([command], tmp_path / "printed")
    case = (tmp_path / "case").read_text("utf-8") if (tmp_path / "case").exists() else "none"
    assert ended.status == 0, f"case {case}: status {ended.status}\n{ended.stderr[-3000:]}"
    found = json.loads(ended.stdout.splitlines()[-1])
    print(name, {key: found[key] for key in ("answer", "refused")})
    assert found["wrong"] == []
    # Of two checkpoints the one that is whole is taken.
    assert (found["refused"] > 0) != (name == "checkpoint")


# --- nothing that is read is executed -------------------------------------------------------------


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_no_pickle_is_loaded(tmp_path):
    executed = tmp_path / "executed"
    array = np.array([Hostile(executed)], dtype=object)
    # It would work.
    pickle.loads(pickle.dumps(Hostile(executed))).close()
    executed.unlink()
    make_corrupted(tmp_path / "corrupted")
    for name in ("labels.npy", "brightness.npy"):
        with open(tmp_path / "corrupted" / name, "wb") as file:
            np.save(file, array, allow_pickle=True)
        with pytest.raises(ValueError, match=rf"{name} is not a complete .npy file without Python"):
            list(corrupted_sets.read_corrupted(tmp_path / "corrupted"))
        make_corrupted(tmp_path / "again")
        (tmp_path / "again" / name).rename(tmp_path / "corrupted" / name)
    (tmp_path / "jobs").mkdir()
    make_job(tmp_path / "jobs")
    path = os.path.join(A_JOB.folder(str(tmp_path / "jobs")), comparison_job.PREDICTIONS)
    np.savez(path, **{"none/0/correct": array, "none/0/confidence": array})
    with pytest.raises(ValueError, match=f"{comparison_job.PREDICTIONS} is damaged"):
        comparison_statistics.Result.read(str(tmp_path / "jobs"), A_JOB)
    assert not executed.exists()


def test_no_code_in_a_keras_file_is_run(tmp_path):
    executed, path = tmp_path / "executed", tmp_path / "model.keras"

    def lambda_layer(images, path=str(executed)):
        open(path, "w").close()
        return images

    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Lambda(lambda_layer),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    network.save(path)
    executed.unlink()
    with pytest.raises(ValueError, match="model.keras is no Keras model that can be loaded: .*"):
        Predictor(str(path))
    assert not executed.exists()


def test_no_archive_writes_beside_itself(tmp_path):
    folder = tmp_path / "inside"
    folder.mkdir()
    path = folder / "model.keras"
    a_model().save(path)
    members = unzip(path.read_bytes())
    outside = {f"{way}outside": b"hostile" for way in ("../", "../../", f"{tmp_path}/")}
    path.write_bytes(zipped({**outside, **members, "assets/../../outside": b"hostile"}))
    with zipfile.ZipFile(path) as archive:
        assert "../outside" in archive.namelist()
    try:
        Predictor(str(path))
    except ValueError as error:
        assert "model.keras" in str(error)
    assert sorted(os.listdir(tmp_path)) == ["inside"] and os.listdir(folder) == ["model.keras"]
