"""CIFAR-10, CIFAR-100 and ImageNet through TensorFlow Datasets."""

import os
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from data.crops import View
from data.options import Options, Parts
from data.records import ImageRecords
from data.splits import Split

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

IMAGENET_SIZE, IMAGENET_CENTRE = 224, 0.875
IMAGENET_HOLDOUT = 10_000


def load_cifar(name: str, options: Options) -> Parts:
    """CIFAR-10 or CIFAR-100 (Krizhevsky, 2009): 50,000 and 10,000 images of 32×32, in memory.

    Raises:
        FileNotFoundError: If the data are not there.
        ValueError: If a label is missing or out of range.
    """
    builder = prepared_builder(name, options)
    feature = builder.info.features["label"]
    parts = []
    for split in ("train", "test"):
        examples = builder.as_dataset(split=split, batch_size=-1, shuffle_files=False)
        images, labels = examples["image"].numpy(), examples["label"].numpy().astype(np.int32)
        if labels.size and not 0 <= labels.min() <= labels.max() < feature.num_classes:
            raise ValueError(
                f"{split} of {builder.data_dir} has examples without a label in "
                f"0..{feature.num_classes - 1}; prepare it again."
            )
        parts.append(Split(images, labels, options.crops(published=True)))
    return Parts(_source_of(builder), *parts, tuple(feature.names))


def load_imagenet2012(options: Options) -> Parts:
    """ImageNet (ILSVRC 2012): read while it is used; its validation split is the test part.

    Raises:
        FileNotFoundError: If the data are not there.
        ValueError: If they are stored as anything but TFRecords.
    """
    builder = prepared_builder("imagenet2012", options)
    view = View(options.image_size or IMAGENET_SIZE, IMAGENET_CENTRE, antialias=False)
    train, test = (
        Split(ImageRecords.of(builder, split, view), crop_and_flip=options.crops(published=True))
        for split in ("train", "validation")
    )
    names = tuple(builder.info.features["label"].names)
    return Parts(_source_of(builder), train, test, names, most_held_out=IMAGENET_HOLDOUT)


def prepared_builder(name: str, options: Options) -> "tfds.core.DatasetBuilder":
    """The builder, by its name in TFDS, of a data set that is on disk.

    Raises:
        FileNotFoundError: If the data are not there; at once, without a try to download them.
        ImportError: If TFDS is not installed.
        OSError: If the download failed.

    Example:
        >>> prepared_builder("cifar10", Options("/nowhere"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        FileNotFoundError: cifar10 is not in /nowhere/cifar10. ...
    """
    folder = options.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    folder = os.path.expanduser(folder)
    missing = FileNotFoundError(
        f"{name} is not in {os.path.join(folder, name)}. {_how_to_get(name, folder)}"
    )
    if not options.download and not tf.io.gfile.isdir(os.path.join(folder, name)):
        raise missing
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"{name} needs TensorFlow Datasets: pip install 'keras-autolabel[train]' ({error})."
        ) from error
    builder = tfds.builder(name, data_dir=folder)
    if builder.is_prepared():
        return builder
    if not options.download:
        raise missing
    try:
        builder.download_and_prepare()
    except (tfds.download.DownloadError, AssertionError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise OSError(
            f"{name} could not be prepared: {reason} {_how_to_get(name, folder)}"
        ) from error
    return builder


def _how_to_get(name: str, folder: str) -> str:
    command = f"tfds build {name} --data_dir={folder}"
    if name == "imagenet2012":
        manual = os.path.join(folder, "downloads", "manual")
        return (
            "Its licence is agreed to at https://image-net.org: put ILSVRC2012_img_train.tar and "
            f"ILSVRC2012_img_val.tar into {manual}, then add --download to your command once, or "
            f"run: {command}"
        )
    return (
        f"Add --download to your command once, run: {command}, or name the folder that holds "
        f"{name} with --data_dir."
    )


def _source_of(builder: "tfds.core.DatasetBuilder") -> str:
    return f"TFDS {builder.info.full_name} from {builder.data_dir}"
