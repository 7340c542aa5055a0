"""What each worker of ``train.cluster`` does."""

import os
from typing import Any

import tensorflow as tf
from absl import logging

from keras_autolabel.distribution import is_chief
from train import builders, run_folder, training
from train.settings import Settings

# A file in the folder of a run that asks the workers to end behind their step.
ASKED_TO_END = "asked_to_end"


def work(settings: Settings, folder: str, start: float, checkpointing: dict[str, Any]) -> None:
    """What each worker does; Ray has written ``TF_CONFIG``, which says who the others are.

    Args:
        settings: The settings of the run.
        folder: Its folder, which all workers share.
        start: When the run began, in seconds since the epoch.
        checkpointing: As in ``run_folder.Checkpoints``.

    Raises:
        ValueError, OSError: As in ``training.run``.
    """
    # TensorFlow tells of every collective that it makes.
    tf.get_logger().setLevel("ERROR")
    logging.set_verbosity(logging.ERROR)
    if run_folder.read_settings(folder) is None:
        raise ValueError(f"--output_dir={folder} must be a folder that all workers share.")
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    splits = builders.load_data(settings)
    model = builders.build_model(settings, splits, strategy)
    asked = os.path.join(folder, ASKED_TO_END)
    try:
        training.train(
            model,
            settings,
            splits,
            folder,
            asked_to_end=lambda: is_chief(strategy) and os.path.exists(asked),
            **checkpointing,
        )
    except run_folder.Terminated as ended:
        if is_chief(strategy):
            print(ended)
        return
    if is_chief(strategy):
        # A model of its own has the mean of what workers keep apart, and waits for none of them.
        alone = builders.build_model(settings, splits, tf.distribute.get_strategy())
        run_folder.Checkpoints(alone, folder).restore()
        training.finish(alone, settings, splits, folder, start)
