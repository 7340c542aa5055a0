"""Small data sets in the real format of TensorFlow Datasets, written as TFDS itself reads them."""

import contextlib
import io
import os

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

IMAGENET_CLASSES = 1000


def fake_images(count: int, side: int, *, seed: int = 0) -> np.ndarray:
    """uint8 [count, side, side, 3]: noise in blocks of 2 pixels, no two images alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, side // 2, side // 2, 3))
    return coarse.astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)


def write_cifar(name: str, data_dir: str, *, train: int, test: int) -> None:
    """Image i has class i % K; images of the two parts are fake_images of seeds 0 and 1."""
    classes = {"cifar10": 10, "cifar100": 100}[name]
    parts = {}
    for seed, (part, count) in enumerate({"train": train, "test": test}.items()):
        images = fake_images(count, 32, seed=seed)
        parts[part] = [
            {"id": f"{part}_{i}", "image": images[i], "label": i % classes}
            | ({"coarse_label": 0} if name == "cifar100" else {})
            for i in range(count)
        ]
    _write(name, data_dir, parts, per_file=25)


def write_imagenet(data_dir: str, *, train: int, test: int, side: int = 16) -> None:
    """Image i has class i % 1000; JPEGs, 300 a file; files of two heights."""
    parts = {}
    for seed, (part, count) in enumerate({"train": train, "validation": test}.items()):
        images = fake_images(count, side, seed=seed)
        parts[part] = [
            {
                "file_name": f"{part}_{i}.JPEG",
                "image": io.BytesIO(tf.io.encode_jpeg(images[i, : side - 2 * (i % 2)]).numpy()),
                "label": i % IMAGENET_CLASSES,
            }
            for i in range(count)
        ]
    _write("imagenet2012", data_dir, parts, per_file=300)


def _write(name: str, data_dir: str, parts: dict[str, list[dict]], *, per_file: int) -> None:
    builder = tfds.builder(name, data_dir=data_dir)
    os.makedirs(builder.data_dir)
    with contextlib.redirect_stdout(io.StringIO()):
        writer = tfds.core.SequentialWriter(builder.info, max_examples_per_shard=per_file)
        writer.initialize_splits(list(parts))
        writer.add_examples(parts)
        writer.close_all()
