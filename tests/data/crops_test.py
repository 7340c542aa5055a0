import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import crops


def _encoded(image: np.ndarray, kind: str) -> tf.Tensor:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return tf.constant(buffer.getvalue())


def test_shift_and_flip_as_numpy_does_and_the_same_in_a_graph_and_in_tf_data(photographs):
    shifts, flips = crops.draw_shifts(len(photographs), seed=tf.constant([3, 1]))
    assert 0 < np.sum(flips) < len(flips)
    padded = np.pad(photographs, [(0, 0), (4, 4), (4, 4), (0, 0)])
    expected = [
        image[top : top + 37, left : left + 50][:, :: -1 if flip else 1]
        for image, (top, left), flip in zip(padded, shifts.numpy(), flips.numpy(), strict=True)
    ]
    arguments = (tf.constant(photographs), shifts, flips)
    (mapped,) = tf.data.Dataset.from_tensors(arguments).map(crops.shift_and_flip)
    graph = tf.function(crops.shift_and_flip)(*arguments)
    for moved in (crops.shift_and_flip(*arguments), graph, mapped):
        assert moved.dtype == tf.uint8
        np.testing.assert_array_equal(moved, expected)


def test_shifts_and_flips_are_uniform():
    shifts, flips = crops.draw_shifts(9000, seed=tf.constant([0, 5]))
    for side in shifts.numpy().T:
        # A count is binomial: 1000 with a deviation of 30.
        assert np.all(np.abs(np.bincount(side, minlength=9) - 1000) < 150)
    assert abs(np.mean(flips) - 0.5) < 0.03
    assert abs(np.corrcoef(shifts[:, 0], shifts[:, 1])[0, 1]) < 0.05


def test_windows_are_as_published():
    shape = tf.constant([300, 500, 3])
    windows = np.array(
        [crops.draw_window(shape, seed=tf.constant([i, 0])) for i in range(300)], float
    )
    top, left, height, width = windows.T
    assert top.min() >= 0 and np.all(top + height <= 300)
    assert left.min() >= 0 and np.all(left + width <= 500)
    area, ratio = height * width / (300 * 500), width / height
    # A pixel of the shorter side is 1.5% of the smallest window.
    assert 0.078 < area.min() < 0.15 and area.max() <= 1.0 and area.max() > 0.7
    assert 0.73 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.36
    again = crops.draw_window(shape, seed=tf.constant([7, 0]))
    np.testing.assert_array_equal(again, windows[7])


@pytest.mark.parametrize(
    ("shape", "fraction", "window"),
    [
        ([256, 256, 3], 0.875, [16, 16, 224, 224]),
        ([256, 320, 3], 0.875, [16, 48, 224, 224]),
        ([10, 7, 3], 1.0, [1, 0, 7, 7]),
        ([1, 5, 3], 0.875, [0, 2, 1, 1]),
    ],
)
def test_the_window_in_the_middle(shape, fraction, window):
    middle = crops.centre_window(tf.constant(shape), fraction=fraction)
    assert middle.numpy().tolist() == window


def test_224_of_256_is_cut_out_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    decoded = crops.View(224, 0.875, antialias=False).of(_encoded(image, "PNG"), 0)
    np.testing.assert_array_equal(decoded, image[16:240, 16:240])


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "JPEG"])
def test_formats_are_decoded_as_by_pillow(photographs, kind):
    encoded = _encoded(photographs[0], kind)
    expected = np.array(Image.open(io.BytesIO(encoded.numpy())).convert("RGB"), float)
    decoded = crops.View(37).of(encoded, 0)
    assert decoded.dtype == tf.uint8
    # Both decode a JPEG by a transform of their own, a level or two apart.
    assert np.abs(expected[:, 6:43] - decoded.numpy()).mean() < (2.0 if kind == "JPEG" else 0.01)


def test_each_image_has_a_window_of_its_own_and_half_of_them_are_flipped():
    png = _encoded(np.arange(0, 240, 4, np.uint8)[np.newaxis].repeat(60, axis=0), "PNG")
    windows = [crops.View(9).of(png, number, tf.constant([0, 1])).numpy() for number in range(60)]
    assert len(set(map(bytes, windows))) > 50
    flipped = [window[0, 0, 0] > window[0, -1, 0] for window in windows]
    assert 15 < sum(flipped) < 45


def test_grey_becomes_rgb():
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    decoded = crops.View(8).of(_encoded(image, "PNG"), 0)
    np.testing.assert_array_equal(decoded, image[..., np.newaxis].repeat(3, axis=-1))


def test_smaller_images_are_filtered_as_by_pillow_or_not_at_all(photographs):
    image = photographs[3][:36, :36]
    png = _encoded(image, "PNG")
    # The middle of three pixels is one of them.
    np.testing.assert_array_equal(crops.View(12, antialias=False).of(png, 0), image[1::3, 1::3])
    decoded = crops.View(12).of(png, 0)
    expected = np.array(Image.fromarray(image).resize((12, 12), Image.Resampling.BICUBIC), float)
    assert np.abs(expected - decoded.numpy()).max() <= 2.0
