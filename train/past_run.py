"""What a run left behind: its settings, and the network of its last checkpoint if it was killed."""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf
from tensorflow import keras

import data
from data.loaders import RESIZED
from train import run_folder, training
from train.settings import Settings


def settings_beside(path: str) -> Settings | None:
    """The settings of the run that a model comes from.

    Args:
        path: The folder of the run, or a model in it.

    Returns:
        What ``settings.json`` says, with today's default for what a run did not know yet; None
        where there is none, or that of another program.
    """
    known = {field.name for field in dataclasses.fields(Settings)}
    for folder in (path, os.path.dirname(path.rstrip("/"))):
        content = run_folder.read_settings(folder)
        if content is not None:
            return Settings(**{name: content[name] for name in known & content.keys()})
    return None


def shared_settings(dataset: str, runs: Iterable[Settings], given: Mapping[str, Any]) -> Settings:
    """Settings that prepare test images as they were for several runs.

    Args:
        dataset: The data set.
        runs: The settings of runs on it.
        given: What was chosen, whatever the runs say.

    Returns:
        The settings of the first run, or the default ones, with what was given. Where a data set
        has a size of its own, the folder of the data is not taken from the run.

    Raises:
        ValueError: If the runs' images differ in what was not given.

    Example:
        >>> runs = [Settings(dataset="image_folder", image_size=64)]
        >>> shared_settings("image_folder", runs, {"data_dir": "flowers"}).image_size
        64
    """
    runs = list(runs) or [Settings(dataset=dataset)]
    if dataset not in RESIZED:
        # Their test images are the same for every run.
        return dataclasses.replace(runs[0], **{"data_dir": None, **given})
    for name in ("data_dir", "image_size", "crop_and_flip", "skip_unreadable"):
        found = list(dict.fromkeys(getattr(run, name) for run in runs))
        if len(found) > 1 and name not in given:
            raise ValueError(
                f"The models were trained with {name} {found[0]} and {found[1]}; choose with "
                f"--{name}, or measure them one by one."
            )
    return dataclasses.replace(runs[0], **given)


def restored_network(
    checkpoint: str, settings: Settings, splits: data.Splits
) -> tuple[keras.Model, int]:
    """The network of a run that was killed.

    Args:
        checkpoint: What ``run_folder.last_checkpoint`` returned.
        settings: The settings of the run.
        splits: Its data; the network normalises with their moments.

    Returns:
        The network, and the number of epochs that it was trained for.

    Raises:
        ValueError: If the checkpoint is damaged or of another network.
    """
    model = training.build(settings, splits)
    epoch = tf.Variable(0, dtype=tf.int64)
    try:
        restored = tf.train.Checkpoint(model=model, epoch=epoch).restore(checkpoint)
        restored.expect_partial().assert_existing_objects_matched()
    # What a damaged checkpoint raises is nowhere said.
    except Exception as error:
        raise ValueError(
            f"The checkpoint {checkpoint} is damaged or of another network: {first_line(error)}"
        ) from error
    return model.network, int(epoch)


def first_line(error: Exception) -> str:
    """The first line that an exception says, or its name if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
