"""Corrupted test sets: CIFAR-10-C, CIFAR-100-C and generated ones; ImageNet-C by `image_tree`."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data.corruptions.generation import LABELS_FILE
from data.corruptions.generation import choose_examples as choose_examples
from data.corruptions.generation import generate_corrupted as generate_corrupted
from data.corruptions.image_tree import CorruptedFiles as CorruptedFiles
from data.corruptions.image_tree import is_image_tree as is_image_tree
from data.corruptions.image_tree import read_image as read_image
from data.corruptions.image_tree import read_imagenet_c as read_imagenet_c
from data.corruptions.manifest import MANIFEST_FILE
from data.corruptions.manifest import read_manifest as read_manifest
from data.corruptions.severities import ALL19, SEVERITIES, checked_severities
from data.corruptions.severities import corruption_names as corruption_names


@dataclasses.dataclass(frozen=True, eq=False)
class CorruptedSet:
    """What a folder of corrupted images holds.

    Attributes:
        directory: the folder.
        name: how reports call it: "<dataset> + corruptions (generated)" for a set of our own,
            "<folder> (published)" for any other.
        generated: whether it was made by `generate_corrupted`.
        corruptions: the names, in the order of `ALL19`.
        severities: ascending.
        examples: images per corruption and severity.
        labels: int32 [examples].
        skipped: the corruptions that were asked for and left out, and why.
        dataset: the name of the clean data; None for a published set.
        seed: of all random draws; None for a published set.
    """

    directory: pathlib.Path
    name: str
    generated: bool
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    examples: int
    labels: np.ndarray = dataclasses.field(repr=False)
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)
    dataset: str | None = None
    seed: int | None = None


class CorruptedPart(NamedTuple):
    """One corruption at one severity.

    Attributes:
        corruption: its name.
        severity: 1 to 5.
        images: uint8 [n, H, W, C], on disk until it is used.
        labels: int32 [n].
    """

    corruption: str
    severity: int
    images: np.ndarray
    labels: np.ndarray


def open_corrupted(directory: str | os.PathLike[str]) -> CorruptedSet:
    """Look at a folder `<corruption>.npy`, `labels.npy` and check that it is sound.

    It is CIFAR-10-C, CIFAR-100-C or what `generate_corrupted` wrote.

    Raises:
        FileNotFoundError: the folder, or its labels, are missing.
        ValueError: the labels are not sound, the folder holds no corruption, or a generated set
            is not finished.
    """
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"There is no folder of corrupted images at {directory}.")
    manifest = read_manifest(directory)
    severities = checked_severities(manifest["severities"]) if manifest else SEVERITIES
    present = tuple(name for name in ALL19 if (directory / f"{name}.npy").exists())
    if manifest:
        missing = [name for name in manifest["requested"] if name not in present]
        missing += [name for name in present if name not in manifest["corruptions"]]
        if missing:
            raise ValueError(
                f"{directory} is not finished: {', '.join(dict.fromkeys(missing))} missing. Run "
                "the command that generates it again; what is complete is kept."
            )
    if not present:
        raise ValueError(f"{directory} holds no <corruption>.npy, such as {ALL19[0]}.npy.")
    labels = _read_labels(directory / LABELS_FILE, severities)
    if manifest and manifest["examples"] != len(labels):
        raise ValueError(
            f"{directory / LABELS_FILE} has {len(labels)} labels per severity, but "
            f"{MANIFEST_FILE} says {manifest['examples']} examples."
        )
    told = {"name": f"{directory.resolve().name} (published)"}
    if manifest:
        told = {key: manifest[key] for key in ("name", "skipped", "dataset", "seed")}
    return CorruptedSet(
        directory=directory,
        generated=manifest is not None,
        corruptions=present,
        severities=severities,
        examples=len(labels),
        labels=labels,
        **told,
    )


def read_corrupted(
    directory: str | os.PathLike[str],
    *,
    corruptions: str | Iterable[str] | None = None,
    severities: Iterable[int] | None = None,
) -> Iterator[CorruptedPart]:
    """Go through a corrupted set; only what is looked at is read from the disk.

    Args:
        directory: see `open_corrupted`, which also tells whether it is published or generated.
        corruptions: groups or names, see `corruption_names`. Default: all in the folder.
        severities: out of 1 to 5. Default: all in the folder.

    Returns:
        An iterator over corruptions and, within them, ascending severities.

    Raises:
        FileNotFoundError: the folder or a file is missing.
        ValueError: a file is not sound; the message names it. Arrays are checked when their turn
            comes, the rest at once.
    """
    found = open_corrupted(directory)
    names = found.corruptions if corruptions is None else corruption_names(corruptions)
    wanted = found.severities if severities is None else checked_severities(severities)
    for name in names:
        if name not in found.corruptions:
            reason = found.skipped.get(name, "it is not in the folder")
            raise FileNotFoundError(f"{found.directory} has no {name}.npy: {reason}.")
    absent = [severity for severity in wanted if severity not in found.severities]
    if absent:
        raise ValueError(
            f"{found.directory} has the severities {list(found.severities)}. Received: {absent}"
        )
    return _parts(found, names, wanted)


def _parts(
    found: CorruptedSet, names: Sequence[str], severities: Sequence[int]
) -> Iterator[CorruptedPart]:
    count = len(found.severities) * found.examples
    for name in names:
        file = found.directory / f"{name}.npy"
        images = _open_array(file)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise ValueError(
                f"{file} must be uint8 [{count}, H, W, C] with C 1 or 3. "
                f"Received: {images.dtype} {list(images.shape)}"
            )
        if len(images) != count:
            raise ValueError(
                f"{file} has {len(images)} images, but {LABELS_FILE} has {count} labels."
            )
        for severity in severities:
            start = found.severities.index(severity) * found.examples
            part = images[start : start + found.examples]
            yield CorruptedPart(name, severity, part, found.labels)


def _read_labels(file: pathlib.Path, severities: tuple[int, ...]) -> np.ndarray:
    labels = _open_array(file)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or not labels.size:
        raise ValueError(
            f"{file} must be whole numbers [N]. Received: {labels.dtype} {list(labels.shape)}"
        )
    if len(labels) % len(severities):
        raise ValueError(
            f"{file} has {len(labels)} labels, which is no multiple of the "
            f"{len(severities)} severities."
        )
    rounds = np.asarray(labels).reshape(len(severities), -1)
    if (rounds != rounds[0]).any() or rounds.min() < 0:
        raise ValueError(f"{file} must repeat the same labels, 0 or more, for every severity.")
    return rounds[0].astype(np.int32)


def _open_array(file: pathlib.Path) -> np.ndarray:
    if not file.exists():
        raise FileNotFoundError(f"There is no file {file}.")
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    # The header is Python source: damaged, it raises whatever a tokenizer or a parser may.
    except Exception as error:
        raise ValueError(
            f"{file} is not a complete .npy file without Python objects: {error}"
        ) from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{file} is an archive of arrays, not one .npy array.")
    return array
