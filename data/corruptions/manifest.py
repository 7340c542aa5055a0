"""The manifest of a generated set: what was asked for, from which images, what made it."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

MANIFEST_FILE = "manifest.json"

# What a later request may add to.
_GROWING = {"requested", "corruptions", "skipped"}
_KEYS = {"name", "dataset", "seed", "examples", "severities", *_GROWING}


@contextlib.contextmanager
def replacing(file: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a temporary path that becomes `file` in one step, if and only if all goes well."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        yield partial
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def read_manifest(directory: pathlib.Path) -> dict[str, Any] | None:
    """Read the manifest of a generated set; None where the folder has none.

    Raises:
        ValueError: the file is not the manifest of a generated set.
    """
    file = directory / MANIFEST_FILE
    if not file.exists():
        return None
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("generated") is not True:
        raise ValueError(f'{file} does not say "generated": true: it is no manifest of this kind.')
    if _KEYS - manifest.keys():
        raise ValueError(f"{file} lacks {', '.join(sorted(_KEYS - manifest.keys()))}.")
    return manifest


def write_manifest(directory: pathlib.Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a set, or replace it, in one step."""
    with replacing(directory / MANIFEST_FILE) as partial:
        partial.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def merge_manifest(directory: pathlib.Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Join a request with what its folder already holds: it may add corruptions.

    Raises:
        ValueError: the folder holds other images, severities or seeds than those asked for, or
            arrays that no manifest describes.
    """
    earlier = read_manifest(directory)
    if earlier is None:
        if any(directory.glob("*.npy")):
            raise ValueError(
                f"{directory} holds .npy files but no {MANIFEST_FILE}: it looks like a published "
                "set, which is never written to. Choose another folder."
            )
        return dict(asked)
    different = [key for key in asked if key not in _GROWING and earlier.get(key) != asked[key]]
    if different:
        details = ", ".join(
            f"{key}: there {_short(earlier.get(key))}, asked {_short(asked[key])}"
            for key in different
        )
        raise ValueError(
            f"{directory} holds a set made from another request ({details}). "
            "Choose another folder, or delete this one."
        )
    requested = list(dict.fromkeys((*earlier["requested"], *asked["requested"])))
    skipped = {**earlier["skipped"], **asked["skipped"]}
    return {
        **asked,
        "requested": requested,
        "corruptions": earlier["corruptions"],
        "skipped": {name: reason for name, reason in skipped.items() if name not in requested},
    }


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
