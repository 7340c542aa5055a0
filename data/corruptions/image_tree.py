"""Read a tree of corrupted image files, such as ImageNet-C."""

import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from data.corruptions.severities import ALL19, SEVERITIES, checked_severities, corruption_names

_IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")


class CorruptedFiles(NamedTuple):
    """One corruption at one severity, as image files.

    Attributes:
        corruption: its name.
        severity: 1 to 5.
        files: n paths; `read_image` reads one.
        labels: int32 [n].
    """

    corruption: str
    severity: int
    files: list[pathlib.Path]
    labels: np.ndarray


def is_image_tree(directory: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a folder per corruption, as ImageNet-C does, rather than arrays."""
    directory = pathlib.Path(directory)
    return any((directory / name).is_dir() for name in ALL19)


def read_imagenet_c(
    directory: str | os.PathLike[str],
    *,
    corruptions: str | Iterable[str] = "hendrycks15",
    severities: Iterable[int] = SEVERITIES,
    class_ids: Sequence[str] | None = None,
) -> Iterator[CorruptedFiles]:
    """Go through a tree `<corruption>/<severity>/<class id>/<image file>`, such as ImageNet-C.

    Args:
        directory: the folder that holds the corruptions' folders.
        corruptions: groups or names, see `corruption_names`.
        severities: out of 1 to 5.
        class_ids: the names of the classes' folders in the order of their labels. Default: those
            of the first folder, sorted, which for ImageNet's WordNet ids is the usual order.

    Returns:
        An iterator over corruptions and, within them, ascending severities. A folder is listed
        when its turn comes.

    Raises:
        FileNotFoundError: a corruption's or a severity's folder is missing. Found at once.
        ValueError: an argument is unknown, or, when its turn comes, a folder has other classes
            than `class_ids` or a class without images.
    """
    directory = pathlib.Path(directory)
    parts = [
        (name, severity)
        for name in corruption_names(corruptions)
        for severity in checked_severities(severities)
    ]
    for name, severity in parts:
        if not (directory / name / str(severity)).is_dir():
            raise FileNotFoundError(f"There is no folder {directory / name / str(severity)}.")
    if class_ids is None:
        class_ids = _subfolders(directory / parts[0][0] / str(parts[0][1]))
    return (_list_images(directory, *part, list(class_ids)) for part in parts)


def read_image(file: str | os.PathLike[str]) -> np.ndarray:
    """Read an image file of any format that Pillow reads as RGB, uint8 [H, W, 3].

    Raises:
        ValueError: it cannot be read; the message names it.
    """
    try:
        with Image.open(file) as image:
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{file} cannot be read as an image: {error}") from error


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3) or "none"


def _subfolders(folder: pathlib.Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def _list_images(
    directory: pathlib.Path, name: str, severity: int, class_ids: list[str]
) -> CorruptedFiles:
    folder = directory / name / str(severity)
    # A class that is missing would shift the labels of all that follow.
    found = _subfolders(folder)
    strange = [name for name in found if name not in class_ids]
    missing = [class_id for class_id in class_ids if class_id not in found]
    if strange or missing or not class_ids:
        raise ValueError(
            f"{folder} must have a folder for each of the {len(class_ids)} classes and no other. "
            f"Received: {_some(strange)} of no class; {_some(missing)} missing"
        )
    files: list[pathlib.Path] = []
    labels: list[int] = []
    for label, class_id in enumerate(class_ids):
        entries = sorted((folder / class_id).iterdir())
        images = [entry for entry in entries if entry.suffix.lower() in _IMAGE_SUFFIXES]
        if not images:
            raise ValueError(f"{folder / class_id} holds no images ({', '.join(_IMAGE_SUFFIXES)}).")
        files.extend(images)
        labels.extend([label] * len(images))
    return CorruptedFiles(name, severity, files, np.array(labels, np.int32))
