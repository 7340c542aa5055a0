"""How fast chains of image operations are, beside Pillow and Keras' own layers, on one core.

    python -m benchmarks.augment

AugMix and RandAugment run in ``Dataset.map``, as in training. All of it is measured in one process
on the same crops of a photograph, warm and in turns, in seconds of the processor: what else runs on
the machine does not count. Printed are medians over the rounds, and how many times slower the
others are; --output writes the rounds as JSON.

The others do less, or otherwise: Pillow's chain is AugMix by its definition, an image at a time.
Keras' layers draw operations once for a whole batch, AugMix even once for all batches, when a
dataset traces it: its cost is the mean of that many layers, each with a chain of its own.
"""

import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import app, flags
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image
from tensorflow import keras

import keras_autolabel as kal
from keras_autolabel.augment.augmix import AUGMIX_OPERATIONS

flags.DEFINE_multi_integer("side", [32, 224], "Side of the images in pixels.", lower_bound=8)
flags.DEFINE_integer("rounds", 7, "Rounds, of which the median is printed.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of the crops and of what is drawn.", lower_bound=0)
flags.DEFINE_string("output", None, "JSON file of all rounds; none by default.")

FLAGS = flags.FLAGS
# Pixels of a batch, and images at most.
PIXELS, MOST_IMAGES = 32 * 224 * 224, 256
KERAS_LAYERS = 16


def crops(side: int, seed: int) -> np.ndarray:
    """uint8 [B, side, side, 3]: parts of a photograph that comes with scikit-learn."""
    photograph = load_sample_image("china.jpg")
    step = max(1, 224 // side)
    size = min(MOST_IMAGES, PIXELS // side**2)
    rng = np.random.default_rng(seed)
    height, width, _ = photograph.shape
    corners = rng.integers(0, [height - side * step, width - side * step], (size, 2))
    end = side * step
    return np.stack([photograph[y : y + end : step, x : x + end : step] for y, x in corners])


def augmix_by_pillow(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """AugMix with one chain of up to 3 operations at severity 3, an image at a time."""
    result = np.empty(images.shape, np.float32)
    for row, pixels in enumerate(images):
        chain = Image.fromarray(pixels)
        for _ in range(rng.integers(1, 4)):
            name = AUGMIX_OPERATIONS[rng.integers(len(AUGMIX_OPERATIONS))]
            chain = _by_pillow(chain, name, rng.uniform(0.1, 3.0) / 10.0, rng.choice([-1, 1]))
        clean, moved = (np.asarray(x, np.float32) / 255.0 for x in (pixels, chain))
        weight = np.float32(rng.uniform())
        result[row] = weight * clean + (1.0 - weight) * moved
    return result


def _by_pillow(image: Image.Image, name: str, strength: float, sign: int) -> Image.Image:
    side, slope = image.size[0], sign * 0.3 * strength
    matrices = {
        "shear_x": (1, slope, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, slope, 1, 0),
        "translate_x": (1, 0, sign * side / 3 * strength, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, sign * side / 3 * strength),
    }
    if name in matrices:
        kind, how = Image.Transform.AFFINE, Image.Resampling.BILINEAR
        return image.transform(image.size, kind, matrices[name], how)
    if name == "rotate":
        return image.rotate(sign * 30 * strength, Image.Resampling.BILINEAR)
    if name == "posterize":
        return ImageOps.posterize(image, 4 - int(4 * strength))
    if name == "solarize":
        return ImageOps.solarize(image, 256 - 256 * strength)
    return getattr(ImageOps, name)(image)


def on_one_core(dataset: tf.data.Dataset) -> Callable[[], None]:
    """A function that makes the next batch of a dataset, which repeats, on one core."""
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    batches = iter(dataset.repeat().with_options(options))
    return lambda: next(batches)


def contestants(images: np.ndarray, seed: int) -> dict[str, dict[str, Callable[[], object]]]:
    """For each augmentation the name of each way -> a function that makes a batch, or a list."""
    labels = np.zeros(len(images), np.int32)
    data = tf.data.Dataset.from_tensors((images, labels))
    rng = np.random.default_rng(seed)

    def ours(augmentation):
        return on_one_core(data.apply(augmentation.dataset_transform(seed=seed)))

    def layers(name, count, **arguments):
        if not hasattr(keras.layers, name):
            return None
        makers = []
        for number in range(count):
            random.seed(seed + number)  # What Keras chooses chains with.
            made = getattr(keras.layers, name)(value_range=(0, 255), seed=number, **arguments)
            makers.append(on_one_core(data.map(lambda x, _, made=made: made(x))))
        return lambda: [make() for make in makers]

    ways = {
        "AugMix": {
            "keras_autolabel": ours(kal.AugMix()),
            "Pillow": lambda: augmix_by_pillow(images, rng),
            "keras.layers.AugMix": layers("AugMix", KERAS_LAYERS, num_chains=1, factor=0.3),
        },
        "RandAugment": {
            "keras_autolabel": ours(kal.RandAugment()),
            "keras.layers.RandAugment": layers("RandAugment", 1),
        },
    }
    return {name: {k: v for k, v in by.items() if v} for name, by in ways.items()}


def seconds_of(make_batch: Callable[[], object], least: float = 0.05) -> float:
    """Processor seconds of a batch, over as many batches as take at least a moment."""
    count, start = 0, time.process_time()
    while (spent := time.process_time() - start) < least or not count:
        made = make_batch()
        count += len(made) if isinstance(made, list) else 1
    return spent / count


def measure(side: int) -> list[dict]:
    """The rounds of each way, for images of one size; microseconds an image."""
    images = crops(side, FLAGS.seed)
    results = []
    for augmentation, ways in contestants(images, FLAGS.seed).items():
        first = {}
        for name, make_batch in ways.items():
            start = time.perf_counter()
            make_batch()
            first[name] = time.perf_counter() - start
            make_batch()
        rounds = {name: [] for name in ways}
        for _ in range(FLAGS.rounds):
            for name, make_batch in ways.items():
                rounds[name].append(1e6 * seconds_of(make_batch) / len(images))
        for name, values in rounds.items():
            ratios = [x / ours for x, ours in zip(values, rounds["keras_autolabel"], strict=True)]
            results.append(
                {
                    "augmentation": augmentation,
                    "side": side,
                    "batch": len(images),
                    "way": name,
                    "microseconds": values,
                    "ratios": ratios,
                    "first_seconds": first[name],
                }
            )
    return results


def main(argv: list[str]) -> None:
    """Measures, prints a table, and writes the rounds."""
    if len(argv) > 1:
        sys.exit(f"benchmarks.augment: Unknown arguments: {' '.join(argv[1:])}")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    print(
        f"One core of {platform.processor() or platform.machine()}, TensorFlow {tf.__version__}; "
        f"medians of {FLAGS.rounds} rounds, seed {FLAGS.seed}; × with the range over the rounds."
    )
    print("| augmentation | images | by | µs an image | × ours | first batch, s |")
    print("| --- | --- | --- | ---: | ---: | ---: |")
    results = []
    for side in FLAGS.side:
        for row in measure(side):
            results.append(row)
            low, middle, high = (f(row["ratios"]) for f in (min, statistics.median, max))
            print(
                f"| {row['augmentation']} | {row['batch']} of {side}×{side}×3 | {row['way']} | "
                f"{statistics.median(row['microseconds']):.1f} | "
                f"{middle:.1f} ({low:.1f} to {high:.1f}) | {row['first_seconds']:.1f} |",
                flush=True,
            )
    if FLAGS.output:
        with open(FLAGS.output, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=2)


if __name__ == "__main__":
    app.run(main)
