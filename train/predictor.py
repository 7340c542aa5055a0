"""A trained classifier, whatever it was saved as."""

import dataclasses
import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tensorflow import keras

import data
import keras_autolabel as kal
from keras_autolabel.network import OnUnitImages, check_construction, check_outputs
from train import builders, run_folder

# Registers the layers that a model.keras of ours is made of.
from train import image_network as image_network
from train.reasons import reason_of
from train.settings import Settings

ANY_SIZE = (None, None, None)


class Predictor:
    """Logits of images, from a SavedModel, a ``.keras`` file or a checkpoint.

    Args:
        path: A folder that ``AutoLabelModel.export`` wrote, a ``.keras`` file, or the folder of a
            run: of its export, its ``.keras`` file and its last checkpoint, the first that is
            there is taken.
        data_dir: Where the data of a run that was killed are, whose moments the network needs;
            None: where its settings say.
        download: Whether they may be fetched.

    Attributes:
        run_settings: The settings of the run that it comes from, out of its ``settings.json``; None
            where there is none.
        name: The path, for reports; of a checkpoint, with its epoch.
        network: ``network(images, training=False)`` -> logits [B, K], for attacks; images float32
            in [0, 1].
        image_shape: (H, W, C) of the images that it takes, None for what may be of any size.
        temperature: That of the export; 1.0 where there is none.

    Raises:
        FileNotFoundError: If nothing is there.
        ValueError: If it is no model of ours, damaged, or returns probabilities; says what was
            found.
    """

    def __init__(self, path: str, *, data_dir: str | None = None, download: bool = False):
        self.name = path.rstrip("/")
        self.temperature = 1.0
        self.run_settings = run_folder.settings_of_run(path)
        for inside in ("saved_model", "model.keras"):
            if os.path.isdir(path) and os.path.exists(os.path.join(path, inside)):
                path = os.path.join(path, inside)
                break
        if not os.path.exists(path):
            raise FileNotFoundError(f"There is no model at {path}.")
        checkpoint = self.run_settings and run_folder.last_checkpoint(path)
        if os.path.isfile(path):
            self.network, self.image_shape = _keras_network(path)
        elif checkpoint:
            run = self.run_settings
            moved = dataclasses.replace(run, data_dir=data_dir or run.data_dir)
            splits = builders.load_data(moved, download=download)
            self.network, epoch = _restored_network(checkpoint, run, splits)
            self.name += f", epoch {epoch}"
            self.image_shape = splits.train.image_shape
        else:
            loaded, self.image_shape = _saved_model(path)
            # The loaded object is kept: its functions do not keep its variables alive.
            self.loaded = loaded
            self.temperature = float(loaded.temperature)
            self.network = lambda images, training=False: loaded(images)["logits"]
        self._logits = tf.function(
            lambda images: self.network(images, training=False),
            input_signature=[tf.TensorSpec([None, *self.image_shape], tf.float32)],
            autograph=False,
        )

    def check_images(self, image_shape: Sequence[int]) -> None:
        """Refuses images of another size, [H, W, C], than the model takes."""
        if not tf.TensorShape(self.image_shape).is_compatible_with(image_shape):
            raise ValueError(
                f"{self.name} takes {size_of(self.image_shape)} images. "
                f"Received: {size_of(image_shape)}"
            )

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32 [B, K], of a batch, uint8 [B, H, W, C]; refuses one of another size."""
        self.check_images(images.shape[1:])
        try:
            return self._logits(tf.cast(images, tf.float32) / 255.0).numpy()
        # Of any size, it said, but these were too small for its layers.
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            size = size_of(images.shape[1:])
            raise ValueError(f"{self.name} does not take {size} images.") from error


def size_of(image_shape: Sequence[int | None]) -> str:
    """The size of images [H, W, C] as one says it; None for what may be any.

    Example:
        >>> size_of((28, 28, 1)), size_of((None, None, 3))
        ('28x28x1', 'anyxanyx3')
    """
    return "x".join("any" if size is None else str(size) for size in image_shape)


def _saved_model(path: str) -> tuple[tf.Module, tuple[int | None, ...]]:
    found = ", ".join(sorted(os.listdir(path))[:5]) or "nothing"
    if not tf.saved_model.contains_saved_model(path):
        raise ValueError(f"{path} holds no SavedModel; it holds {found}.")
    try:
        loaded = tf.saved_model.load(path)
    # What a damaged one raises is nowhere said: OpError, IndexError, ...
    except Exception as error:
        raise ValueError(
            f"{path} is damaged, export the model again: {reason_of(error)}"
        ) from error
    signatures = getattr(loaded, "signatures", {})
    ours = "float_images" in signatures and hasattr(loaded, "temperature")
    if not ours or "logits" not in signatures["float_images"].structured_outputs:
        described = "; ".join(
            f"{name}: {sorted(function.structured_outputs)}"
            for name, function in signatures.items()
        )
        raise ValueError(
            f"{path} was not written by AutoLabelModel.export: it needs a signature float_images "
            f"that returns logits. Found signatures: {described or 'none'}."
        )
    _, inputs = signatures["float_images"].structured_input_signature
    return loaded, tuple(inputs["images"].shape[1:])


def _keras_network(path: str) -> tuple[Callable, tuple[int | None, ...]]:
    try:
        model = keras.models.load_model(path, compile=False)
    # What a damaged file raises is nowhere said: BadZipFile, KeyError, zlib.error, ...
    except Exception as error:
        raise ValueError(
            f"{path} is no Keras model that can be loaded: {reason_of(error)}"
        ) from error
    if isinstance(model, kal.AutoLabelModel):
        return model.classifier, model.image_shape or ANY_SIZE
    if not getattr(model, "inputs", None):
        return model, ANY_SIZE
    image_shape = tuple(model.inputs[0].shape[1:])
    if len(image_shape) != 3:
        raise ValueError(f"{path} takes no images [H, W, C]. Received: inputs {list(image_shape)}")
    try:
        check_construction(model, (0.0, 1.0))
        check_outputs(OnUnitImages(model, (0.0, 1.0)), image_shape, model.output_shape[-1])
    except ValueError as error:
        raise ValueError(f"{path}: {reason_of(error)}") from error
    return model, image_shape


def _restored_network(
    checkpoint: str, settings: Settings, splits: data.Splits
) -> tuple[Callable, int]:
    """The network of a run that was killed, and the number of epochs that it was trained for."""
    model = builders.build_model(settings, splits)
    epoch = tf.Variable(0, dtype=tf.int64)
    try:
        restored = tf.train.Checkpoint(model=model, epoch=epoch).restore(checkpoint)
        restored.expect_partial().assert_existing_objects_matched()
    # What a damaged checkpoint raises is nowhere said.
    except Exception as error:
        raise ValueError(
            f"The checkpoint {checkpoint} is damaged or of another network: {reason_of(error)}"
        ) from error
    return model.classifier, int(epoch)
