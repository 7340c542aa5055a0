"""What TensorBoard's page of hyper-parameters shows of a run: its settings beside its figures."""

from collections.abc import Mapping

import tensorflow as tf
from tensorboard.plugins.hparams import api

from train.settings import FIELDS, Settings, is_read


def write(folder: str, settings: Settings, figures: Mapping[str, float], **more: str) -> None:
    """Writes a row of the page: settings that something reads, and ``more`` that tells it apart.

    Each row has a folder of its own, made if need be.
    """
    read = {name: getattr(settings, name) for name in FIELDS if is_read(name, settings)}
    writer = tf.summary.create_file_writer(folder)
    with writer.as_default(settings.epochs):
        api.hparams({name: value for name, value in read.items() if value is not None} | more)
        for name, value in figures.items():
            tf.summary.scalar(name, value)
    writer.close()
