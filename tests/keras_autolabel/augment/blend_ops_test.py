import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_image

from keras_autolabel.augment import blend_ops, image_ops
from tests.keras_autolabel.augment.image_ops_test import as_pillow, one_batch, pillow

# In single precision, as the operations get them.
FACTORS = np.float32([0.0, 0.1, 1 / 3, 0.55, 0.9999, 1.0, 1.003, 1.3, 1.9, 7.7]).tolist()
MAGNITUDES = dict.fromkeys(("color", "contrast", "brightness", "sharpness"), FACTORS)


@pytest.fixture(scope="module", params=["rgb", "grey", "narrow", "flat"])
def images(request) -> np.ndarray:
    """uint8 [B, H, W, C]: real crops in colour and grey, some of one or two pixels, flat ones."""
    china, flower = load_sample_image("china.jpg"), load_sample_image("flower.jpg")
    if request.param == "rgb":
        return np.stack([china[60:103, 200:251], flower[150:193, 300:351], china[:43, :51]])
    if request.param == "grey":
        return np.stack([china[60:103, 200:251], flower[150:193, 300:351]])[..., 1:2]
    if request.param == "narrow":
        return flower[np.newaxis, 150:152, 300:309]
    levels = np.array([0, 1, 128, 255]).reshape(4, 1, 1, 1)
    return np.broadcast_to(levels, [4, 5, 6, 3]).astype(np.uint8)


def test_enhancements_equal_pillow(images):
    cases, *batch = one_batch(images, MAGNITUDES)
    actual = image_ops.apply_operations(*batch).numpy()
    for result, (index, name, factor) in zip(actual, cases, strict=True):
        expected = pillow(images[index], name, factor)
        np.testing.assert_array_equal(result, expected, f"{name} {factor}")


@pytest.mark.parametrize("factor", [0.0, 0.1, 0.3, 0.77, 1.0, 1.09, 1.9, 3.0])
def test_blend_of_every_pair_of_values_equals_pillow(factor):
    one, other = np.meshgrid(*[np.arange(256, dtype=np.uint8)] * 2)
    factor = np.float32(factor)
    expected = Image.blend(Image.fromarray(one), Image.fromarray(other), float(factor))
    actual = blend_ops.blend(
        tf.constant(one[np.newaxis, ..., np.newaxis]),
        tf.constant(other[np.newaxis, ..., np.newaxis]),
        tf.constant([factor]),
    )
    np.testing.assert_array_equal(actual[0, ..., 0], expected)


def test_luminance_equals_pillow_for_every_colour_of_a_grid():
    # 64 levels of each channel, ends included, and two whose sum is the last that is rounded down;
    # in one column, which is no grey image.
    levels = np.round(np.linspace(0, 255, 64)).astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 1, 3)
    colours = np.concatenate([colours, np.uint8([[[0, 62, 229]], [[0, 183, 27]]])])
    expected = np.asarray(Image.fromarray(colours).convert("L"))
    actual = blend_ops.luminance(tf.constant(colours[np.newaxis]))
    np.testing.assert_array_equal(actual[0, ..., 0], expected)
    in_every_channel = blend_ops.grey(tf.constant(colours[np.newaxis]))[0]
    np.testing.assert_array_equal(in_every_channel, np.repeat(expected[..., np.newaxis], 3, -1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 2), (3, 1), (3, 3), (40, 31)])
def test_smooth_equals_pillow(size, channels):
    image = load_sample_image("china.jpg")[100 : 100 + size[0], 50 : 50 + size[1], :channels]
    noise = np.random.default_rng(0).integers(256, size=image.shape).astype(np.uint8)
    actual = blend_ops.smooth(tf.constant(np.stack([image, noise])))
    for result, source in zip(actual.numpy(), (image, noise), strict=True):
        expected = np.asarray(as_pillow(source).filter(ImageFilter.SMOOTH))
        np.testing.assert_array_equal(result, expected.reshape(source.shape))
