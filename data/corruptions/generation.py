"""Generate a corrupted set in the layout of CIFAR-10-C."""

import concurrent.futures
import contextlib
import hashlib
import importlib.metadata
import multiprocessing
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tqdm

from data.corruptions.apply import corrupt, skipped
from data.corruptions.manifest import merge_manifest, replacing, write_manifest
from data.corruptions.severities import SEVERITIES, checked_severities, corruption_names

LABELS_FILE = "labels.npy"

_PORTION = 250
_RULE = "the first of each class in the order of the test split, as many of each class as possible"


def choose_examples(labels: np.ndarray, examples: int | None = None) -> np.ndarray:
    """Choose the same examples each time: the first of each class, in equal numbers.

    Args:
        labels: int [N], the classes.
        examples: how many, 1 to N. Default: all.

    Returns:
        int64 [examples], indices in ascending order.

    Raises:
        ValueError: there are not that many.

    Example:
        >>> choose_examples(np.array([0, 0, 0, 1, 1, 0]), 4)
        array([0, 1, 3, 4])
    """
    examples = len(labels) if examples is None else examples
    if not 1 <= examples <= len(labels):
        raise ValueError(
            f"examples must be from 1 to {len(labels)}, the size of the test split. "
            f"Received: examples={examples}"
        )
    by_class = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    turns = np.empty(len(labels), np.int64)
    turns[by_class] = np.arange(len(labels)) - np.repeat(starts, counts)
    return np.sort(np.argsort(turns, kind="stable")[:examples])


def generate_corrupted(
    images: np.ndarray,
    labels: np.ndarray,
    directory: str | os.PathLike[str],
    *,
    dataset: str,
    corruptions: str | Iterable[str] = "ovadia17",
    severities: Iterable[int] = SEVERITIES,
    examples: int | None = None,
    seed: int = 0,
    processes: int = 1,
    progress: bool = False,
) -> dict[str, Any]:
    """Write a corrupted set in the layout of CIFAR-10-C, or finish one that was interrupted.

    Each corruption is one file `<corruption>.npy`, uint8 [S·n, H, W, C], the lowest severity
    first; `labels.npy` repeats the labels for each of the S severities; `manifest.json` says how
    the set was made. Every file appears at once, when it is complete. One run at a time may write
    to a folder.

    Args:
        images: uint8 [N, H, W, C], the test split; see `corrupt`.
        labels: int [N], at least 0.
        directory: where to write. Complete files of the same request are kept.
        dataset: the name of the clean data; the set is called "<dataset> + corruptions
            (generated)".
        corruptions: groups or names, see `corruption_names`. Those that cannot be made for these
            images on this machine are left out and listed as skipped.
        severities: out of 1 to 5.
        examples: n, see `choose_examples`. Default: all.
        seed: of all random draws.
        processes: how many work at the same time; 1 works in this process.
        progress: whether to draw a progress bar on a terminal.

    Returns:
        The manifest.

    Raises:
        ValueError: an argument is not as above, all corruptions are skipped, or the folder holds
            something else.
    """
    directory = pathlib.Path(directory)
    names, severities = corruption_names(corruptions), checked_severities(severities)
    _check(images, labels, seed, processes)
    indices = choose_examples(labels, examples)
    images, labels = images[indices], labels[indices]
    asked = {
        **_request(images, labels, names),
        "name": f"{dataset} + corruptions (generated)",
        "dataset": dataset,
        "severities": list(severities),
        "seed": int(seed),
    }
    directory.mkdir(parents=True, exist_ok=True)
    manifest = merge_manifest(directory, asked)
    write_manifest(directory, manifest)
    with replacing(directory / LABELS_FILE) as partial, partial.open("wb") as stream:
        smallest = np.min_scalar_type(labels.max())
        np.save(stream, np.tile(labels.astype(smallest), len(severities)), allow_pickle=False)
    _write_missing(directory, manifest, images, indices, processes, progress)
    return manifest


def _check(images: np.ndarray, labels: np.ndarray, seed: int, processes: int) -> None:
    if processes < 1:
        raise ValueError(f"processes must be at least 1. Received: processes={processes}")
    # What cannot be corrupted is refused before anything is written.
    corrupt(images[:1], "contrast", severity=1, seed=seed)
    whole = np.issubdtype(labels.dtype, np.integer)
    if labels.shape != (len(images),) or not whole or labels.min(initial=0) < 0:
        raise ValueError(
            f"labels must be {len(images)} whole numbers of at least 0, one per image. "
            f"Received: shape {list(labels.shape)}, {labels.dtype}"
        )


def _request(images: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
    reasons = {name: skipped(name, channels=images.shape[3]) for name in names}
    left_out = {name: reason for name, reason in reasons.items() if reason}
    if len(left_out) == len(names):
        details = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ValueError(f"Nothing is left to generate, for all is skipped ({details}).")
    digest = hashlib.sha256(np.ascontiguousarray(images))
    digest.update(labels.astype("<i8"))
    return {
        "generated": True,
        "examples": len(images),
        "examples_rule": _RULE,
        "examples_sha256": digest.hexdigest(),
        "image_shape": list(images.shape[1:]),
        "requested": [name for name in names if name not in left_out],
        "corruptions": {},
        "skipped": left_out,
    }


def _versions() -> str:
    packages = ("numpy", "scipy", "pillow")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)


def _complete(file: pathlib.Path, shape: tuple[int, ...]) -> bool:
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False).shape == shape
    except (OSError, ValueError):
        return False


def _begin_worker() -> None:
    # Ctrl-C is for the parent, which then stops the workers; a parent that is killed cannot.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    # From a thread nothing milder ends a process; a file half written has another name.
    signal.raise_signal(signal.SIGKILL)


def _write_missing(
    directory: pathlib.Path,
    manifest: dict[str, Any],
    images: np.ndarray,
    indices: np.ndarray,
    processes: int,
    progress: bool,
) -> None:
    """Write what is not there yet; `manifest` and its file learn of each corruption as it ends."""
    severities, seed = manifest["severities"], manifest["seed"]
    shape = (len(severities) * len(images), *images.shape[1:])
    done = manifest["corruptions"]
    missing = [
        name
        for name in manifest["requested"]
        if name not in done or not _complete(directory / f"{name}.npy", shape)
    ]
    parts = [slice(start, start + _PORTION) for start in range(0, len(images), _PORTION)]
    workers = min(processes, len(parts) * len(severities)) if missing else 1
    hidden = None if progress else True
    with (
        tqdm.tqdm(total=len(missing) * shape[0], unit=" images", disable=hidden) as bar,
        _mapper(workers) as mapper,
    ):
        for name in missing:
            bar.set_description(name)
            tasks = [
                (images[part], name, severity, seed, indices[part])
                for severity in severities
                for part in parts
            ]
            _write(directory / f"{name}.npy", shape, mapper(_corrupt_task, tasks), bar.update)
            done[name] = _versions()
            write_manifest(directory, manifest)


def _write(
    file: pathlib.Path,
    shape: tuple[int, ...],
    portions: Iterable[np.ndarray],
    advance: Callable[[int], object],
) -> None:
    with replacing(file) as partial:
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        row = 0
        for portion in portions:
            array[row : row + len(portion)] = portion
            row += len(portion)
            advance(len(portion))
        array.flush()


def _corrupt_task(task: tuple[np.ndarray, str, int, int, np.ndarray]) -> np.ndarray:
    images, name, severity, seed, indices = task
    return corrupt(images, name, severity=severity, seed=seed, indices=indices)


@contextlib.contextmanager
def _mapper(processes: int) -> Iterator[Callable[..., Iterator[np.ndarray]]]:
    """Give a `map` that keeps the order and works in so many processes."""
    if processes <= 1:
        yield map
        return
    executor = concurrent.futures.ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_worker,
    )
    try:
        yield executor.map
    finally:
        executor.shutdown(cancel_futures=True)
