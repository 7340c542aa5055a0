import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from keras_autolabel.augment import image_ops
from keras_autolabel.augment.augmix import AUGMIX_OPERATIONS
from keras_autolabel.augment.randaugment import RANDAUGMENT_OPERATIONS

# Magnitudes in the unit of each operation: degrees, slope, fraction of the side, bits, threshold.
POINT_MAGNITUDES = {
    "autocontrast": [0.0],
    "equalize": [0.0],
    "posterize": [0.0, 1.0, 2.0, 3.0, 4.0, 8.0],
    "solarize": [0.0, 1.0, 100.0, 127.5, 179.2, 255.0, 256.0],
}
GEOMETRIC_MAGNITUDES = {
    "rotate": [-30.0, -9.0, 0.5, 45.0],
    **dict.fromkeys(("shear_x", "shear_y"), [-0.3, -0.09, 0.01, 0.3]),
    **dict.fromkeys(("translate_x", "translate_y"), [-1 / 3, -0.1, 0.01, 1 / 3]),
}


def as_pillow(image: np.ndarray) -> Image.Image:
    """An image of uint8 [H, W, C], grey where C is 1."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def _pillow_affine(image: Image.Image, *six: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, six, Image.Resampling.BILINEAR)


def pillow(pixels: np.ndarray, name: str, magnitude: float) -> np.ndarray:
    """One operation by Pillow, whose coordinates count from the corner of the first pixel."""
    image, (height, width, _) = as_pillow(pixels), pixels.shape
    if name == "posterize":
        # Pillow's posterize refuses 0 bits; the mask is what it applies for the others.
        bits = int(magnitude)
        result = ImageOps.posterize(image, bits) if bits else image.point(lambda _: 0)
    elif name == "solarize":
        result = ImageOps.solarize(image, magnitude)
    elif name == "rotate":
        result = image.rotate(magnitude, Image.Resampling.BILINEAR)
    elif name == "shear_x":
        result = _pillow_affine(image, 1, magnitude, 0, 0, 1, 0)
    elif name == "shear_y":
        result = _pillow_affine(image, 1, 0, 0, magnitude, 1, 0)
    elif name == "translate_x":
        result = _pillow_affine(image, 1, 0, magnitude * width, 0, 1, 0)
    elif name == "translate_y":
        result = _pillow_affine(image, 1, 0, 0, 0, 1, magnitude * height)
    elif name in ("autocontrast", "equalize"):
        result = getattr(ImageOps, name)(image)
    else:
        result = getattr(ImageEnhance, name.capitalize())(image).enhance(magnitude)
    return np.asarray(result).reshape(pixels.shape)


def _source_is_inside(name: str, magnitude: float, height: int, width: int) -> np.ndarray:
    """Where the source of a pixel lies more than a pixel inside the image."""
    y, x = np.mgrid[:height, :width] + 0.5
    if name == "rotate":
        # Seen from the centre with y upwards, the source is the pixel turned back clockwise.
        source = ((x - width / 2) + 1j * (height / 2 - y)) * np.exp(-1j * np.deg2rad(magnitude))
        x, y = source.real + width / 2, height / 2 - source.imag
    elif name == "shear_x":
        x = x + magnitude * y
    elif name == "shear_y":
        y = y + magnitude * x
    elif name == "translate_x":
        x = x + magnitude * width
    else:
        y = y + magnitude * height
    return (x > 1.5) & (x < width - 1.5) & (y > 1.5) & (y < height - 1.5)


def one_batch(images: np.ndarray, magnitudes: dict) -> tuple:
    """Every image with every operation at every magnitude, shuffled into one batch.

    ``(index, name, magnitude)`` of each image of the batch, and what ``apply_operations`` is given.
    """
    cases = [
        (index, name, magnitude)
        for index in range(len(images))
        for name, values in magnitudes.items()
        for magnitude in values
    ]
    cases = [cases[i] for i in np.random.default_rng(0).permutation(len(cases))]
    batch = tf.constant(images[[index for index, _, _ in cases]])
    operation = tf.constant([RANDAUGMENT_OPERATIONS.index(name) for _, name, _ in cases])
    magnitude = tf.constant([value for *_, value in cases], tf.float32)
    return cases, batch, operation, magnitude, RANDAUGMENT_OPERATIONS


@pytest.fixture(scope="module", params=["rgb", "grey", "small", "digits", "flat"])
def images(request, photographs, digits) -> np.ndarray:
    """Photographs in colour and grey, few pixels, digits, one colour and two."""
    if request.param == "flat":
        # More than 255 pixels, all or most of the brightest colour, which equalize leaves out.
        flat = np.full([2, 18, 20, 3], [7, 0, 255], np.uint8)
        flat[1, 2, 1] = [9, 255, 254]
        return flat
    if request.param == "digits":
        return digits[0][:6]
    if request.param == "small":
        return photographs[:, 5:14, 3:20]
    if request.param == "grey":
        return photographs.mean(axis=-1, keepdims=True).astype(np.uint8)
    return photographs


def test_point_operations_equal_pillow(images):
    cases, *batch = one_batch(images, POINT_MAGNITUDES)
    actual = image_ops.apply_operations(*batch).numpy()
    for result, (index, name, magnitude) in zip(actual, cases, strict=True):
        expected = pillow(images[index], name, magnitude)
        np.testing.assert_array_equal(result, expected, f"{name} {magnitude}")


def test_geometric_operations_equal_pillow_inside(images):
    cases, *batch = one_batch(images, GEOMETRIC_MAGNITUDES)
    actual = image_ops.apply_operations(*batch).numpy().astype(int)
    compared = 0
    for result, (index, name, magnitude) in zip(actual, cases, strict=True):
        inside = _source_is_inside(name, magnitude, *result.shape[:2])
        gap = np.abs(result - pillow(images[index], name, magnitude))[inside]
        compared += gap.size
        assert np.mean(gap <= 1) >= 0.99, f"{name} {magnitude}: {gap.max()}"
    assert compared > 0.3 * actual.size


def test_every_pair_of_extremes_is_stretched_as_pillow_does():
    low, high = np.array([(a, b) for a in range(0, 256, 5) for b in range(a, 256, 3)]).T
    ramp = np.linspace(low, high, 16, axis=-1).astype(np.uint8).reshape(-1, 4, 4, 1)
    table = image_ops.autocontrast_table(tf.constant(ramp), tf.zeros([len(ramp)]))
    actual = image_ops.look_up(tf.constant(ramp), table)
    expected = [pillow(image, "autocontrast", 0.0) for image in ramp]
    np.testing.assert_array_equal(actual, expected)


# --- hand numbers ---------------------------------------------------------------------------------


def _one(image, name: str, magnitude: float) -> np.ndarray:
    image = np.array(image, np.uint8)[np.newaxis, ..., np.newaxis]
    operation = tf.constant([AUGMIX_OPERATIONS.index(name)])
    moved = image_ops.apply_operations(image, operation, [magnitude], AUGMIX_OPERATIONS)
    return moved.numpy()[0, ..., 0]


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (1.0, [200, 60, 20, 0]),  # the source of each pixel stands one to the right
        (-1.0, [0, 100, 200, 60]),
        (0.5, [150, 130, 40, 10]),  # half of the last pixel comes from outside: black
        (-0.5, [50, 150, 130, 40]),
        (0.25, [125, 165, 50, 15]),
        (3.0, [20, 0, 0, 0]),
        (4.0, [0, 0, 0, 0]),
    ],
)
def test_outside_is_black_and_within_a_pixel_mixed_with_black(pixels, expected):
    row = [100, 200, 60, 20]
    np.testing.assert_array_equal(_one([row, row], "translate_x", pixels / 4), [expected] * 2)
    column = np.array([row, row]).T
    moved = _one(column, "translate_y", pixels / 4)
    np.testing.assert_array_equal(moved, np.array([expected] * 2).T)


def test_shear_by_hand():
    # Row y (centre at y + 0.5) is read slope·(y + 0.5) further right: 0.5, 1.5.
    image, expected = [[100, 200, 60, 20]] * 2, [[150, 130, 40, 10], [130, 40, 10, 0]]
    np.testing.assert_array_equal(_one(image, "shear_x", 1.0), expected)
    np.testing.assert_array_equal(_one(np.transpose(image), "shear_y", 1.0), np.transpose(expected))


# --- one operation per example --------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed_batch(photographs) -> tuple:
    """All operations at all their magnitudes in one batch."""
    enhanced = dict.fromkeys(("color", "contrast", "brightness", "sharpness"), [0.1, 1.0, 1.9])
    magnitudes = POINT_MAGNITUDES | GEOMETRIC_MAGNITUDES | enhanced
    return one_batch(photographs[:2, :18, :25], magnitudes)[1:]


def test_each_image_depends_on_its_own_parameters_alone_and_minus_1_leaves_it(mixed_batch):
    images, operation, magnitude, names = mixed_batch
    together = image_ops.apply_operations(*mixed_batch).numpy()
    for row in range(0, len(together), 7):
        one = (x[row : row + 1] for x in (images, operation, magnitude))
        np.testing.assert_array_equal(together[row], image_ops.apply_operations(*one, names)[0])
    kept = np.arange(len(images)) % 3 == 0
    some = tf.where(kept, -1, operation)
    result = image_ops.apply_operations(images, some, magnitude, names).numpy()
    np.testing.assert_array_equal(result[kept], images.numpy()[kept])
    np.testing.assert_array_equal(result[~kept], together[~kept])


@pytest.mark.parametrize(
    "names", [("rotate",), ("solarize",), ("solarize", "rotate"), ("shear_x", "translate_y")]
)
def test_a_selection_of_operations(names, photographs):
    magnitude = {"rotate": 9.0, "solarize": 100.0, "shear_x": 0.1, "translate_y": -0.2}
    operation = tf.range(len(photographs)) % (len(names) + 1) - 1
    values = [0.0 if i < 0 else magnitude[names[i]] for i in operation.numpy()]
    everywhere = tf.constant(
        [-1 if i < 0 else AUGMIX_OPERATIONS.index(names[i]) for i in operation.numpy()]
    )
    np.testing.assert_array_equal(
        image_ops.apply_operations(photographs, operation, values, names),
        image_ops.apply_operations(photographs, everywhere, values, AUGMIX_OPERATIONS),
    )


def test_eager_equals_graph_equals_dataset(mixed_batch):
    *batch, names = mixed_batch
    eager = image_ops.apply_operations(*batch, names)
    unknown = [tf.TensorSpec([None] * 4, tf.uint8), tf.TensorSpec([None], tf.int32)]
    graph = tf.function(
        lambda *batch: image_ops.apply_operations(*batch, names),
        input_signature=[*unknown, tf.TensorSpec([None], tf.float32)],
    )
    np.testing.assert_array_equal(graph(*batch), eager)
    data = tf.data.Dataset.from_tensor_slices(tuple(batch)).batch(16).map(graph)
    np.testing.assert_array_equal(np.concatenate(list(data.as_numpy_iterator())), eager)
