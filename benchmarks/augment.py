"""How fast chains of image operations are, beside those of other libraries.

    python -m benchmarks.augment

AugMix and RandAugment run in ``Dataset.map``, as in training, on crops of a photograph. The lower
bound is the time in which the machine copies as many bytes as a chain reads and writes.

Pillow's chain is AugMix by its definition, an image at a time. Keras' layers draw operations once
for a whole batch, AugMix even once for all batches, when a dataset traces it: its cost is the mean
of that many layers, each with a chain of its own. The batches of tensorflow-addons are made of
images that are augmented one by one, as it has it; it needs TensorFlow 2.15.
"""

import random
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import tensorflow as tf
from absl import app
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image
from tensorflow import keras

import keras_autolabel as kal
from benchmarks.rounds import FLAGS, Case, Way, benchmark, define_flags
from keras_autolabel.augment.augmix import AUGMIX_OPERATIONS

# Pixels of a batch, and images at most.
PIXELS, MOST_IMAGES = 32 * 224 * 224, 256
KERAS_LAYERS = 16


def crops(side: int, seed: int, size: int | None = None) -> np.ndarray:
    """uint8 [B, side, side, 3]: parts of a photograph that comes with scikit-learn."""
    photograph = load_sample_image("china.jpg")
    step = max(1, 224 // side)
    size = size or min(MOST_IMAGES, PIXELS // side**2)
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


def batches(dataset: tf.data.Dataset, workers: int = 1) -> Callable[[], object]:
    """A function that makes the next batch of a dataset, again and again; none ahead of time."""
    options = tf.data.Options()
    options.threading.private_threadpool_size = workers
    options.autotune.enabled = False
    iterator = iter(dataset.repeat().with_options(options))

    def run():
        next(iterator)

    return run


def ours(augmentation, images: np.ndarray) -> Callable[[], object]:
    """Batches of an augmentation of this package."""
    data = tf.data.Dataset.from_tensors((images, np.zeros(len(images), np.int32)))
    return batches(data.apply(augmentation.dataset_transform(seed=FLAGS.seed)))


def many(augmentation, images: np.ndarray, workers: int) -> Callable[[], int]:
    """So many batches that what workers make ahead of time does not count."""
    data = tf.data.Dataset.from_tensors((images, np.zeros(len(images), np.int32))).repeat()
    run = batches(data.apply(augmentation.dataset_transform(seed=FLAGS.seed)), workers)
    count = 2 if FLAGS.tiny else 40

    def run_many():
        for _ in range(count):
            run()
        return count

    return run_many


def by_pillow(images: np.ndarray) -> Callable[[], object]:
    """Batches of Pillow's AugMix."""
    rng = np.random.default_rng(FLAGS.seed)

    def run():
        augmix_by_pillow(images, rng)

    return run


def by_keras(name: str, count: int, images: np.ndarray, **arguments) -> Callable[[], int]:
    """Batches of a layer of Keras, one of each of ``count`` layers."""
    data = tf.data.Dataset.from_tensors(images)
    makers = []
    for number in range(count):
        random.seed(FLAGS.seed + number)  # What Keras chooses chains with.
        layer = getattr(keras.layers, name)(value_range=(0, 255), seed=number, **arguments)
        makers.append(batches(data.map(layer)))

    def run():
        for make in makers:
            make()
        return count

    return run


def by_albumentations(images: np.ndarray, names: tuple[str, ...]) -> Callable[[], object]:
    """Batches of albumentations: two of the operations for each image, and AugMix's mixture."""
    import albumentations
    import cv2

    cv2.setNumThreads(1)
    chain = albumentations.Compose(
        [albumentations.SomeOf([_of_albumentations(name) for name in names], n=2, replace=True)],
        seed=FLAGS.seed,
    )
    rng = np.random.default_rng(FLAGS.seed)

    def run():
        result = np.empty(images.shape, np.float32)
        for row, image in enumerate(images):
            weight = np.float32(rng.uniform() / 255.0)
            moved = chain(image=image)["image"]
            result[row] = cv2.addWeighted(image, weight, moved, 1 / 255.0 - weight, 0.0, None, 5)

    return run


def _of_albumentations(name: str):
    import albumentations as A

    share = (-0.1, 0.1)
    return {
        "autocontrast": A.AutoContrast(p=1),
        "equalize": A.Equalize(p=1),
        "posterize": A.Posterize(num_bits=4, p=1),
        "rotate": A.Rotate(limit=(-9, 9), p=1),
        "solarize": A.Solarize(threshold_range=(0.7, 1.0), p=1),
        "shear_x": A.Affine(shear={"x": (-5, 5), "y": (0, 0)}, p=1),
        "shear_y": A.Affine(shear={"x": (0, 0), "y": (-5, 5)}, p=1),
        "translate_x": A.Affine(translate_percent={"x": share, "y": (0, 0)}, p=1),
        "translate_y": A.Affine(translate_percent={"x": (0, 0), "y": share}, p=1),
    }[name]


def by_addons(images: np.ndarray) -> Callable[[], object]:
    """Batches of AugMix out of tensorflow-addons' operations, an image at a time."""
    import tensorflow_addons as tfa

    side = images.shape[1]
    sheared = partial(tfa.image.transform, interpolation="bilinear")
    operations = [
        lambda x, _: tfa.image.equalize(x),
        lambda x, level: tfa.image.rotate(x, 0.52 * level, "bilinear"),
        lambda x, level: sheared(x, [1.0, 0.3 * level, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]),
        lambda x, level: sheared(x, [1.0, 0.0, 0.0, 0.3 * level, 1.0, 0.0, 0.0, 0.0]),
        lambda x, level: tfa.image.translate(x, [level * side / 3, 0.0], "bilinear"),
        lambda x, level: tfa.image.translate(x, [0.0, level * side / 3], "bilinear"),
    ]

    def augmix(image):
        def step(index, chain):
            level = tf.random.uniform([], -0.3, 0.3)
            number = tf.random.uniform([], 0, len(operations), tf.int32)
            made = [partial(apply, chain, level) for apply in operations]
            return index + 1, tf.ensure_shape(tf.switch_case(number, made), image.shape)

        depth = tf.random.uniform([], 1, 4, tf.int32)
        _, chain = tf.while_loop(lambda index, _: index < depth, step, (0, image))
        weight = tf.random.uniform([])
        clean, moved = (tf.cast(x, tf.float32) / 255.0 for x in (image, chain))
        return weight * clean + (1.0 - weight) * moved

    data = tf.data.Dataset.from_tensor_slices(images)
    return batches(data.map(augmix).batch(len(images)))


def copy_of(images: np.ndarray) -> Callable[[], object]:
    """Copies as many bytes as are read and written for uint8 images that become float32."""
    # A copy reads and writes each of its bytes.
    source = np.ones(5 * images.size // 2, np.uint8)
    target = np.empty_like(source)
    return lambda: np.copyto(target, source)


def cases() -> Iterator[Case]:
    """The comparisons, then what grows."""
    sides = (16,) if FLAGS.tiny else (32, 224)
    for side in sides:
        images = crops(side, FLAGS.seed, 2 if FLAGS.tiny else None)
        yield from comparisons(images)
    for side in sides:
        images = crops(side, FLAGS.seed, 2 if FLAGS.tiny else None)
        for name, augmentation in (("AugMix", kal.AugMix()), ("RandAugment", kal.RandAugment())):
            ways = [
                Way(name_of_way, partial(many, augmentation, images, workers))
                for name_of_way, workers in (("two workers", 2), ("one worker", 1))
            ]
            yield Case(f"{name}, {_shape(images)}", ways, len(images), clock="wall")
    yield from growth()


def _shape(images: np.ndarray) -> str:
    size, side = images.shape[:2]
    return f"{size} of {side}×{side}×3"


def comparisons(images: np.ndarray) -> list[Case]:
    """Each augmentation in all ways."""
    layers, mixed = 1 if FLAGS.tiny else KERAS_LAYERS, "its own ranges; two operations an image"
    return [
        Case(
            f"AugMix, {_shape(images)}",
            [
                Way("keras_autolabel", partial(ours, kal.AugMix(), images)),
                Way("Pillow", partial(by_pillow, images)),
                Way(
                    "keras.layers.AugMix",
                    partial(by_keras, "AugMix", layers, images, num_chains=1, factor=0.3),
                    "less: one chain for all batches",
                ),
                Way("albumentations", partial(by_albumentations, images, AUGMIX_OPERATIONS), mixed),
                Way(
                    "tensorflow-addons", partial(by_addons, images), "less: six of nine operations"
                ),
                Way("bytes copied", partial(copy_of, images), "lower bound"),
            ],
            len(images),
        ),
        Case(
            f"RandAugment, {_shape(images)}",
            [
                Way("keras_autolabel", partial(ours, kal.RandAugment(), images)),
                Way(
                    "keras.layers.RandAugment",
                    partial(by_keras, "RandAugment", 1, images),
                    "less: one draw for a batch",
                ),
                Way("bytes copied", partial(copy_of, images), "lower bound"),
            ],
            len(images),
        ),
    ]


def growth() -> Iterator[Case]:
    """AugMix by side, batch, depth and workers."""
    few = FLAGS.tiny
    for side in (8,) if few else (16, 32, 64, 112, 224):
        images = crops(side, FLAGS.seed, 2 if few else None)
        ways = [
            Way("keras_autolabel", partial(ours, kal.AugMix(), images)),
            Way("Pillow", partial(by_pillow, images)),
            Way("bytes copied", partial(copy_of, images)),
        ]
        yield Case("AugMix", ways, len(images), grows=("side of the images, pixels", side))
    for size in (1,) if few else (1, 8, 64, 512):
        images = crops(16 if few else 32, FLAGS.seed, size)
        ways = [Way("keras_autolabel", partial(ours, kal.AugMix(), images))]
        yield Case("AugMix, 32×32×3", ways, size, grows=("images in a batch", size))
    for depth in (1,) if few else (1, 2, 4, 8):
        images = crops(16 if few else 32, FLAGS.seed, 2 if few else MOST_IMAGES)
        ways = [Way("keras_autolabel", partial(ours, kal.AugMix(max_depth=depth), images))]
        grows = ("largest depth of a chain", depth)
        yield Case("AugMix, 32×32×3", ways, len(images), grows=grows)
    for workers in (1,) if few else (1, 2):
        images = crops(16 if few else 32, FLAGS.seed, 2 if few else MOST_IMAGES)
        ways = [Way("keras_autolabel", partial(many, kal.AugMix(), images, workers))]
        grows = ("workers, each a core", workers)
        yield Case("AugMix, 32×32×3", ways, len(images), grows=grows, clock="wall")


if __name__ == "__main__":
    define_flags()
    app.run(lambda argv: benchmark("augment", cases, argv))
