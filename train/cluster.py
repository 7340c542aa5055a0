"""A run on several workers: a job of Ray Train, on a cluster or on the cores of this machine.

Each worker builds the same model under ``MultiWorkerMirroredStrategy`` and reads its own part of
each batch; the first, the chief, writes. A worker that is lost ends the others, and Ray starts all
of them again from the last checkpoint.
"""

import contextlib
import importlib.util
import os
import signal
import time
from collections.abc import Iterator

from tensorflow import keras

import data
from keras_autolabel.checks import check_last_batch
from train import run_folder, training
from train.choices import AUGMENTATIONS
from train.settings import Settings
from train.worker import ASKED_TO_END

# What Ray writes of the job, in the folder of a run.
JOB = "ray"
LEGACY = "TF_USE_LEGACY_KERAS"
# Workers stay in this process's folder, for a relative --data_dir; what they print is shown once.
RAY_OFF = ("RAY_CHDIR_TO_TRIAL_DIR", "RAY_TRAIN_ENABLE_PRINT_PATCH", "RAY_USAGE_STATS_ENABLED")
# A worker has one core, and needs no thread for others; it is on Keras 2 before it imports Keras.
# Under the strategy of several machines TensorFlow gives memory back to the kernel after each
# operation, which takes half of the time; its own allocator keeps it.
WORKER_ENVIRONMENT = {
    LEGACY: "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_CPU_ALLOCATOR_USE_BFC": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


def check(settings: Settings, workers: int) -> None:
    """Refuses what several workers cannot do, before any data is read.

    Args:
        settings: The settings of the run.
        workers: How many.

    Raises:
        ValueError: With the reason.
        ImportError: With what to install.
    """
    if settings.batch_size % workers:
        raise ValueError(
            f"--batch_size={settings.batch_size} has no equal part for each of "
            f"--workers={workers}: choose a multiple of {workers}."
        )
    size = settings.batch_size // workers
    check_last_batch(AUGMENTATIONS[settings.augmentation](settings), examples=size, batch_size=size)
    needed = ["ray"]
    if hasattr(keras, "ops"):
        needed.append("tf_keras")
        if os.environ.get(LEGACY, "1").lower() not in ("1", "true"):
            raise ValueError(
                f"--workers={workers} trains on Keras 2, since Keras 3 does not train on several "
                f"machines: unset {LEGACY}. Received: {LEGACY}={os.environ[LEGACY]}"
            )
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"--workers={workers} needs {' and '.join(missing)}: pip install -e '.[train,cluster]'"
        )


def run(
    settings: Settings,
    splits: data.Splits,
    folder: str,
    *,
    workers: int,
    address: str | None = None,
    max_failures: int = 3,
    overwrite: bool = False,
    **checkpointing,
) -> dict[str, dict[str, float]]:
    """A whole run, as ``training.run``, on several workers.

    Args:
        settings: The settings of the run.
        splits: Its data; workers read their own.
        folder: The folder of the run, which all workers must share.
        workers: How many.
        address: Of the Ray cluster; None: the cores of this machine, one a worker.
        max_failures: How often the workers are started again after one was lost.
        overwrite: Whether to delete another run that is there.
        **checkpointing: As in ``run_folder.Checkpoints``.

    Returns:
        The figures on the test images, rows of the table.

    Raises:
        ValueError, OSError: As in ``training.run``.
        run_folder.Terminated: At SIGTERM.
    """
    for name in RAY_OFF:
        os.environ.setdefault(name, "0")
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.tensorflow import TensorflowTrainer

    start, folder = time.time(), os.path.abspath(folder)

    def loop(config):
        # Ray's own processes unpickle this, and need not wait for TensorFlow.
        from train import settings, worker

        worker.work(settings.Settings(**config.pop("settings")), **config)

    training.prepare(settings, splits, folder, overwrite=overwrite)
    metrics = os.path.join(folder, run_folder.METRICS)
    _connect(ray, address, workers)
    try:
        gpus = ray.cluster_resources().get("GPU", 0) >= workers
        trainer = TensorflowTrainer(
            loop,
            train_loop_config={
                "settings": vars(settings),
                "folder": folder,
                "start": start,
                "checkpointing": checkpointing,
            },
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
            run_config=RunConfig(
                storage_path=os.path.join(folder, JOB),
                failure_config=FailureConfig(max_failures=max_failures),
            ),
        )
        with _passing_on_sigterm(folder) as terminated:
            trainer.fit()
    except TrainingFailedError as error:
        raise ChildProcessError(line_of(error)) from error
    else:
        if terminated and not os.path.exists(metrics):
            raise run_folder.Terminated("terminated with a checkpoint; the same command goes on.")
    finally:
        ray.shutdown()
    return run_folder.read_json(metrics)["figures"]


def _connect(ray, address: str | None, workers: int) -> None:
    """To a cluster, or to one of this machine's cores that ends with this process."""
    options = {"include_dashboard": False, "num_cpus": workers} if address is None else {}
    ray.init(
        address or "local",
        runtime_env={"env_vars": WORKER_ENVIRONMENT},
        # Without a dashboard Ray warns once a second that it has none.
        logging_level="ERROR",
        logging_config=ray.LoggingConfig(log_level="ERROR"),
        **options,
    )


def line_of(error: Exception) -> str:
    """What the first worker that failed last says, without what Ray says of it."""
    failures = getattr(error, "worker_failures", None)
    lines = str(failures[min(failures)] if failures else error).strip().splitlines()
    return lines[-1].removeprefix("ValueError: ")


@contextlib.contextmanager
def _passing_on_sigterm(folder: str) -> Iterator[list]:
    """Inside, SIGTERM asks the workers to end behind their step; gives a list of what came."""
    asked = os.path.join(folder, ASKED_TO_END)
    came: list = []

    def ask(number, _):
        came.append(number)
        with open(asked, "w", encoding="utf-8"):
            pass

    with contextlib.suppress(FileNotFoundError):
        os.remove(asked)
    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)
        with contextlib.suppress(FileNotFoundError):
            os.remove(asked)
