"""Tests of the corruptions, one image operation at a time and all together."""

import contextlib
import io
import os
import pathlib
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from data.corruptions import (
    ALL19,
    GROUPS,
    SEVERITIES,
    blur,
    colour,
    corrupt,
    corruption_names,
    digital,
    skipped,
    spatter,
    weather,
)
from data.corruptions import apply as apply_module
from data.corruptions.severities import LEVELS

# Their constants do not grow: elastic_transform trades the moves of three points, largest at
# severity 1, for the smooth field.
NOT_MONOTONE = ("elastic_transform",)
ROOT = pathlib.Path(weather.__file__).parents[2]
DETERMINISTIC = tuple(name for name in ALL19 if LEVELS[name][0].draw is None)


@pytest.fixture(scope="module")
def photographs_of_frost(tmp_path_factory):
    """A package with two made-up photographs, in place of the one whose photographs are used."""
    folder = tmp_path_factory.mktemp("packages") / "imagecorruptions" / "frost"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "frost.py").touch()
    files = (folder / "frost1.png", folder / "frost2.png")
    for number, file in enumerate(files):
        texture = np.random.default_rng(number).integers(60, 255, (340, 500, 3), dtype=np.uint8)
        Image.fromarray(texture).save(file)
    return files


@pytest.fixture(autouse=True)
def frost_files(photographs_of_frost, monkeypatch):
    monkeypatch.delitem(sys.modules, "imagecorruptions", raising=False)
    monkeypatch.syspath_prepend(str(photographs_of_frost[0].parents[2]))
    return photographs_of_frost


def pictures(count=4, height=32, width=32, channels=3):
    """Smooth pictures that use the whole range of values."""
    shape = (count, height, width, channels)
    rough = np.random.default_rng(7).random(shape)
    smooth = ndimage.gaussian_filter(rough, (0, 2, 2, 0))
    smooth -= smooth.min(axis=(1, 2, 3), keepdims=True)
    return np.rint(255 * smooth / smooth.max(axis=(1, 2, 3), keepdims=True)).astype(np.uint8)


def fractions(**shape):
    return np.divide(pictures(**shape), 255, dtype=np.float32)


def change(before, after):
    return float(np.abs(after.astype(int) - before).mean())


@pytest.mark.parametrize("name", ALL19)
@pytest.mark.parametrize("shape", [(16, 16, 1), (28, 28, 1), (64, 64, 3), (20, 33, 3), (96, 24, 1)])
def test_works_at_every_size(name, shape):
    height, width, channels = shape
    images = pictures(3, height, width, channels)
    before = images.copy()
    corrupted = corrupt(images, name, severity=5, seed=0)
    assert corrupted.shape == images.shape and corrupted.dtype == np.uint8
    np.testing.assert_array_equal(images, before)
    identity = name == "saturate" and channels == 1
    assert (change(images, corrupted) == 0) == identity
    # Each image keeps its own structure: none has turned into a plain area.
    assert corrupted.std(axis=(1, 2)).min() > 2


@pytest.mark.parametrize("name", [name for name in ALL19 if name not in NOT_MONOTONE])
def test_severity_5_changes_more_than_severity_1(name):
    images = pictures(count=24)
    changes = [change(images, corrupt(images, name, severity=s, seed=0)) for s in (1, 5)]
    assert changes[1] > 1.1 * changes[0] > 0


@pytest.mark.parametrize("name", ALL19)
def test_an_image_depends_on_its_index_and_not_on_its_batch(name, monkeypatch):
    images = pictures(count=9, height=16, width=18)
    together = corrupt(images, name, severity=3, seed=5)
    order = np.array([8, 2, 5])
    chosen = corrupt(images[order], name, severity=3, seed=5, indices=order)
    np.testing.assert_array_equal(chosen, together[order])
    # Nor on the portions in which a large batch is worked on.
    monkeypatch.setattr(apply_module, "_PIXELS_AT_ONCE", 2 * 16 * 18)
    np.testing.assert_array_equal(corrupt(images, name, severity=3, seed=5), together)


@pytest.mark.parametrize("name", ALL19)
def test_draws_differ_by_seed_and_index(name):
    images = np.repeat(pictures(count=1), 2, axis=0)
    first, second = corrupt(images, name, severity=5, seed=0)
    other = corrupt(images, name, severity=5, seed=1)[0]
    assert (first == second).all() == (name in DETERMINISTIC)
    assert (first == other).all() == (name in DETERMINISTIC)


def test_no_images_give_no_images():
    assert corrupt(np.zeros((0, 32, 32, 3), np.uint8), "fog", severity=1, seed=0).size == 0


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noises_have_their_mean_and_deviation(severity):
    level = 102
    value = level / 255
    images = np.full((40, 32, 32, 3), level, np.uint8)
    for name, deviation_of in {
        "gaussian_noise": lambda constant: constant,
        "speckle_noise": lambda constant: value * constant,
        "shot_noise": lambda photons: (value / photons) ** 0.5,
    }.items():
        deviation = deviation_of(*LEVELS[name][severity - 1].constants)
        corrupted = corrupt(images, name, severity=severity, seed=3) / 255
        rounding = 1 / 12 / 255**2
        assert corrupted.mean() == pytest.approx(value, abs=5 * deviation / images.size**0.5)
        # Counted photons and levels of 1/255 beat against each other, by up to 4%.
        assert corrupted.var() == pytest.approx(deviation**2 + rounding, rel=0.05), name


@pytest.mark.parametrize("severity", [1, 5])
def test_impulse_noise_is_half_salt_half_pepper(severity):
    images = np.full((60, 32, 32, 3), 99, np.uint8)
    corrupted = corrupt(images, "impulse_noise", severity=severity, seed=3)
    (amount,) = LEVELS["impulse_noise"][severity - 1].constants
    for extreme in (0, 255):
        assert (corrupted == extreme).mean() == pytest.approx(amount / 2, rel=0.1)
    assert set(np.unique(corrupted)) == {0, 99, 255}


def test_noise_of_one_index_has_no_twin_at_another_severity():
    images = np.full((1, 32, 32, 3), 128, np.uint8)
    mild, strong = (corrupt(images, "gaussian_noise", severity=s, seed=0) for s in (1, 5))
    correlation = np.corrcoef(mild.ravel(), strong.ravel())[0, 1]
    assert abs(correlation) < 0.1


@pytest.mark.parametrize("severity", SEVERITIES)
def test_colours_equal_scikit_image(severity):
    color = pytest.importorskip("skimage.color")
    images = fractions()
    images[0, 0, :3] = [[0, 0, 0], [0.5, 0.5, 0.5], [1, 1, 1]]
    hsv = color.rgb2hsv(images.astype(np.float64))
    brighter, saturated = hsv.copy(), hsv.copy()
    (amount,) = LEVELS["brightness"][severity - 1].constants
    factor, offset = LEVELS["saturate"][severity - 1].constants
    brighter[..., 2] = np.clip(hsv[..., 2] + amount, 0, 1)
    saturated[..., 1] = np.clip(hsv[..., 1] * factor + offset, 0, 1)
    for name, expected in (("brightness", brighter), ("saturate", saturated)):
        level = LEVELS[name][severity - 1]
        ours = level.apply(images, *level.constants)
        np.testing.assert_allclose(ours, color.hsv2rgb(expected), atol=2e-6)


@pytest.mark.parametrize("sigma", [0.4, 1.0])
def test_gaussian_blur_equals_scikit_image(sigma):
    filters = pytest.importorskip("skimage.filters")
    images = fractions()
    expected = [filters.gaussian(image, sigma=sigma, channel_axis=-1) for image in images]
    np.testing.assert_allclose(blur.gaussian_blur(images, sigma), expected, atol=1e-6)


def test_contrast_by_hand():
    images = np.zeros((1, 16, 16, 3), np.uint8)
    images[0, :8, :, 0] = 200
    images[0, :, :, 1] = 70
    corrupted = corrupt(images, "contrast", severity=5, seed=0)
    # Mean 100: 100 ± 100·0.15; a plain channel is its own mean.
    assert set(np.unique(corrupted[..., 0])) == {85, 115}
    assert set(np.unique(corrupted[..., 1])) == {70}


def test_grey_brightness_by_hand():
    images = np.full((1, 16, 16, 1), 100, np.uint8)
    images[0, 0, 0] = [0]
    images[0, 0, 1] = [250]
    corrupted = corrupt(images, "brightness", severity=4, seed=0)
    assert corrupted[0, 0, :3, 0].tolist() == [51, 255, 151]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("severity", [1, 5])
def test_jpeg_and_pixelate_equal_pillow(severity, channels):
    images = pictures(channels=channels)
    (quality,), (scale,) = (
        LEVELS[name][severity - 1].constants for name in ("jpeg_compression", "pixelate")
    )
    side = int(32 * scale)
    jpegs = corrupt(images, "jpeg_compression", severity=severity, seed=0)
    blocks = corrupt(images, "pixelate", severity=severity, seed=0)
    for image, jpeg, block in zip(images, jpegs, blocks, strict=True):
        picture = Image.fromarray(image.squeeze())
        stream = io.BytesIO()
        picture.save(stream, format="jpeg", quality=quality)
        np.testing.assert_array_equal(jpeg.squeeze(), Image.open(stream))
        small = picture.resize((side, side), Image.Resampling.BOX)
        np.testing.assert_array_equal(block.squeeze(), small.resize((32, 32), Image.Resampling.BOX))


def test_defocus_kernels_by_hand():
    # Radius 1.5 covers 3x3 pixels and 0.1 does not smooth.
    images = fractions()
    mean = ndimage.uniform_filter(images, size=(1, 3, 3, 1), mode="mirror")
    np.testing.assert_allclose(blur.defocus_blur(images, 1.5, 0.1), mean, atol=1e-6)
    # Radius 0.3 covers one pixel: what is left is the Gaussian, side to centre e^(-1/0.32).
    side = np.exp(-1 / 0.32)
    row = np.array([side, 1, side]) / (1 + 2 * side)
    np.testing.assert_allclose(blur.disk_kernel(0.3, 0.4), np.outer(row, row), atol=1e-12)


def test_motion_blur_equals_a_loop_over_pixels():
    images, angle, radius, sigma = fractions(count=1, height=17, width=19), -31.0, 6, 2.0
    expected = np.zeros_like(images, dtype=np.float64)
    weights = [np.exp(-0.5 * (step / sigma) ** 2) for step in range(13)]
    for row in range(17):
        for column in range(19):
            for step, weight in enumerate(weights):
                down = np.ceil(step * np.sin(np.pi * angle / 180) - 0.5)
                right = np.ceil(step * np.cos(np.pi * angle / 180) - 0.5)
                source = images[0, int(np.clip(row + down, 0, 16)), int(min(column + right, 18))]
                expected[0, row, column] += weight / sum(weights) * source
    blurred = blur.motion_blur(images, np.array([angle]), radius, sigma)
    np.testing.assert_allclose(blurred, expected, atol=1e-5)


def test_zoom_blur_equals_scipy():
    images, total = fractions(count=2), 0
    centre = np.array([15.5, 15.5, 0])
    zooms = [1, *(1 + step / 100 for step in range(11))]
    for factor in zooms:
        matrix = np.array([1 / factor, 1 / factor, 1])
        offset = centre - centre * matrix
        total += np.stack(
            [ndimage.affine_transform(image, matrix, offset, order=1) for image in images]
        )
    np.testing.assert_allclose(blur.zoom_blur(images, 1.11), total / len(zooms), atol=1e-5)


@pytest.mark.parametrize(("reach", "rounds"), [(1, 1), (1, 2), (2, 1)])
def test_glass_blur_equals_swaps_one_by_one(reach, rounds):
    images = fractions(count=3, height=16, width=18)
    generators = [np.random.default_rng(number) for number in range(3)]
    drawn = [blur.draw_swaps(g, images[0], 0.05, reach, rounds)[0] for g in generators]
    assert min(map(np.min, drawn)) == -reach and max(map(np.max, drawn)) == reach
    expected = images.copy()
    for image, offsets in zip(expected, drawn, strict=True):
        remaining = iter(offsets)
        for _ in range(rounds):
            for row in range(15 - reach, reach - 1, -1):
                for column in range(17 - reach, reach - 1, -1):
                    down, right = next(remaining)
                    kept = image[row, column].copy()
                    image[row, column] = image[row + down, column + right]
                    image[row + down, column + right] = kept
    # A blur of 0.05 pixels changes nothing.
    glass = blur.glass_blur(images, np.stack(drawn), 0.05, reach, rounds)
    np.testing.assert_array_equal(glass, expected)


def test_elastic_moves_by_whole_pixels():
    images = fractions(count=2)
    still = np.zeros((2, 2, 32, 32))
    # All three points move down by 2 and left by 1: the picture does.
    jitter = np.broadcast_to([2 / 32, -1 / 32], (2, 3, 2))
    moved = digital.elastic_transform(images, jitter, still, 0.0, 0.0, 1.0)
    np.testing.assert_allclose(moved[:, 2:, :-1], images[:, :-2, 1:], atol=1e-5)
    # A plain field stays plain when smoothed: each pixel is taken from 3 rows further down.
    field = still + np.array([3 / 32, 0])[None, :, None, None]
    moved = digital.elastic_transform(images, np.zeros((2, 3, 2)), field, 1.0, 0.1, 1.0)
    np.testing.assert_allclose(moved[:, :-3], images[:, 3:], atol=1e-5)


def test_elastic_affine_takes_the_moved_points_back():
    jitter = np.random.default_rng(0).uniform(-2, 2, (1, 3, 2))
    rows, columns = digital.affine_coordinates(jitter, 32, 32)[0]
    reach = 10
    for (down, right), move in zip([(1, 1), (1, -1), (-1, -1)], jitter[0], strict=True):
        point = np.array([16 + down * reach, 16 + right * reach])
        where = (point + move)[:, None]
        back = [ndimage.map_coordinates(part, where, order=1)[0] for part in (rows, columns)]
        np.testing.assert_allclose(back, point, atol=1e-6)


def test_frost_lays_a_crop_over_the_image(frost_files):
    black = np.zeros((1, 32, 32, 3), np.uint8)
    crop = corrupt(black, "frost", severity=1, seed=0)[0] / (0.2 * 255)
    grids = [np.asarray(Image.open(file))[2::5, 2::5] / 255 for file in frost_files]
    windows = [
        grid[top : top + 32, left : left + 32]
        for grid in grids
        for top in range(grid.shape[0] - 31)
        for left in range(grid.shape[1] - 31)
    ]
    # Rounding 0.2·crop leaves 0.5/255/0.2 of doubt.
    assert sum(np.abs(window - crop).max() < 0.01 for window in windows) == 1
    white = corrupt(black + 255, "frost", severity=5, seed=0)
    assert white.min() >= round(0.75 * 255)


def test_frost_without_photographs_is_skipped_by_name(monkeypatch):
    monkeypatch.setattr(weather.importlib.util, "find_spec", lambda name: None)
    assert "pip install imagecorruptions-imaug" in skipped("frost", channels=3)
    with pytest.raises(ModuleNotFoundError, match="pip install imagecorruptions-imaug"):
        corrupt(pictures(), "frost", severity=1, seed=0)


def test_only_saturate_is_skipped_for_grey():
    assert [name for name in ALL19 if skipped(name, channels=1)] == ["saturate"]
    assert not [name for name in ALL19 if skipped(name, channels=3)]


def diamond_square(draws, decay):
    """The definition, one point after the other."""
    size = len(draws)
    height = np.zeros((size, size))

    def settle(row, column, neighbours, amplitude):
        around = [
            height[(row + down) % size, (column + right) % size] for down, right in neighbours
        ]
        height[row, column] = sum(around) / 4 + amplitude * draws[row, column]

    for level in range(int(np.log2(size))):
        step, half, amplitude = size >> level, size >> (level + 1), decay ** (-2.0 * level)
        diagonal = [(half, half), (half, -half), (-half, half), (-half, -half)]
        straight = [(half, 0), (-half, 0), (0, half), (0, -half)]
        corners = [(row, column) for row in range(0, size, step) for column in range(0, size, step)]
        for row, column in corners:
            settle(row + half, column + half, diagonal, amplitude)
        for row, column in corners:
            settle(row, column + half, straight, amplitude)
            settle(row + half, column, straight, amplitude)
    height -= height.min()
    return height / height.max()


def test_plasma_equals_diamond_square_point_by_point():
    draws = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16)).astype(np.float32)
    expected = [diamond_square(each, 2.5) for each in draws]
    np.testing.assert_allclose(weather.plasma_fractal(draws, 2.5), expected, atol=1e-5)


def test_fog_on_plain_images_is_the_plasma():
    draws = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32)).astype(np.float32)
    images = np.stack([np.zeros((28, 28, 1)), np.full((28, 28, 1), 0.5)]).astype(np.float32)
    foggy = weather.fog(images, draws, 1.5, 2.0)
    plasma = weather.plasma_fractal(draws, 2.0)[1, :28, :28, None]
    assert (foggy[0] == 0).all()
    np.testing.assert_allclose(foggy[1], (0.5 + 1.5 * plasma) * 0.5 / 2.0, atol=1e-6)


def test_snow_adds_a_layer_and_its_half_turn():
    flakes = np.zeros((1, 17, 17, 1), np.float32)
    flakes[0, 3, 4, 0] = 9
    black = np.zeros((1, 17, 17, 3), np.float32)
    # One flake, cut to 1, not blurred (a kernel of one pixel); black is whitened to 0.5·0.2.
    snowy = weather.snow(black, flakes, np.array([-90.0]), 0.1, 0.2, 1.0, 0.6, 0, 1.0, 0.8)
    expected = np.full((17, 17, 3), 0.1, np.float32)
    expected[3, 4] += 1
    expected[13, 12] += 1
    np.testing.assert_allclose(snowy[0], expected, atol=1e-6)


def test_snow_falls_downwards_or_upwards():
    generator = np.random.default_rng(0)
    angles = [weather.draw_snow(generator, np.zeros((16, 16, 3)))[1] for _ in range(200)]
    assert -135 <= min(angles) < -130 and -50 < max(angles) <= -45


def test_water_is_pale_turquoise_at_its_brightest():
    drawn = np.random.default_rng(0).standard_normal((4, 32, 32)).astype(np.float32)
    black = np.zeros((4, 32, 32, 3), np.float32)
    wet = spatter.water(black, drawn, 0.65, 0.3, 1.0, 0.69, 0.5)
    brightest = wet.reshape(4, -1, 3).max(axis=1)
    np.testing.assert_allclose(brightest * 255 / 0.5, np.tile([175, 238, 238], (4, 1)), rtol=1e-5)
    liquid = spatter.liquid_layer(drawn, 0.65, 0.3, 1.0, 0.69)
    assert (wet[liquid == 0] == 0).all() and (liquid[liquid > 0] >= 0.69).all()
    expected = ndimage.gaussian_filter(0.65 + 0.3 * drawn[1], 1.0, mode="nearest")
    np.testing.assert_allclose(liquid[1], np.where(expected < 0.69, 0, expected), atol=1e-6)


def test_mud_covers_whole_drops_and_nothing_else():
    drawn = np.full((1, 32, 32), -9.0, np.float32)
    drawn[0, 8:20, 8:20] = 9
    white = np.ones((1, 32, 32, 3), np.float32)
    muddy = np.rint(spatter.mud(white, drawn, 0.65, 0.1, 0.5, 0.68, 0.6) * 255)
    assert (muddy[0, 11:17, 11:17] == [63, 42, 20]).all()
    assert (muddy[0, :5] == 255).all() and (muddy[0, 24:] == 255).all()
    grey = spatter.mud(white[..., :1], drawn, 0.65, 0.1, 0.5, 0.68, 0.6)
    assert grey[0, 14, 14, 0] * 255 == pytest.approx(0.299 * 63 + 0.587 * 42 + 0.114 * 20, abs=1e-3)


def test_equals_an_independent_package(monkeypatch):
    """Ours equal theirs with the constants that they have built in, those for 224 pixels."""
    # The package itself, not the one that was made up.
    monkeypatch.undo()
    reference = pytest.importorskip("imagecorruptions.corruptions")
    images = pictures(count=2, height=48, width=48)
    ours = np.divide(images, 255, dtype=np.float32)

    def theirs(function, severity):
        return np.stack([function(Image.fromarray(image), severity) for image in images]) / 255

    pairs = [
        (colour.contrast(ours, 0.3), theirs(reference.contrast, 2)),
        (colour.brightness(ours, 0.2), theirs(reference.brightness, 2)),
        (colour.saturate(ours, 5, 0.1), theirs(reference.saturate, 4)),
        (blur.gaussian_blur(ours, 2), theirs(reference.gaussian_blur, 2)),
        (blur.defocus_blur(ours, 4, 0.5), theirs(reference.defocus_blur, 2)),
        (digital.jpeg_compression(ours, 18), theirs(reference.jpeg_compression, 2)),
    ]
    for mine, other in pairs:
        np.testing.assert_allclose(np.clip(mine, 0, 1), other, atol=1e-4)
    for angle in (-100.0, -31.0, 44.0):
        mine = blur.motion_blur(ours[:1], np.array([angle]), 9, 2.5)
        other = reference._motion_blur(ours[0], 9, 2.5, angle)
        np.testing.assert_allclose(mine[0], other, atol=1e-5)


def test_groups_hold_what_their_names_say():
    assert set(GROUPS["all19"]) - set(GROUPS["ovadia17"]) == {"motion_blur", "snow"}
    more = {"speckle_noise", "gaussian_blur", "spatter", "saturate"}
    assert set(GROUPS["all19"]) - set(GROUPS["hendrycks15"]) == more
    assert corruption_names(["fog", "all19"])[:2] == ("fog", "gaussian_noise")
    assert {len(levels) for levels in LEVELS.values()} == {5}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"corruption": "rain"}, "corruption='rain'"),
        ({"severity": 0}, ".0."),
        ({"severity": 6}, ".6."),
        ({"severity": "3"}, ".'3'."),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 0.5}, "seed=0.5"),
        ({"indices": [0]}, "shape .1."),
        ({"indices": [0, 1, 2, -3]}, "indices"),
        ({"indices": [0.0, 1.0, 2.0, 3.0]}, "float64"),
        ({"images": pictures().astype(np.float32)}, "float32"),
        ({"images": pictures().tolist()}, "list"),
        ({"images": pictures()[0]}, ".32, 32, 3."),
        ({"images": pictures(channels=2)}, ".4, 32, 32, 2."),
        ({"images": pictures(height=15)}, ".4, 15, 32, 3."),
        ({"images": pictures(1, width=97)}, ".1, 32, 97, 3.*imagecorruptions-imaug"),
    ],
)
def test_refuses_bad_input(changed, message):
    arguments = {"images": pictures(), "corruption": "fog", "severity": 1, "seed": 0, **changed}
    images, name = arguments.pop("images"), arguments.pop("corruption")
    with pytest.raises(ValueError, match=message):
        corrupt(images, name, **arguments)


@pytest.mark.parametrize("names", ["ovadia16", "", ["fog", "rain"], []])
def test_refuses_unknown_groups(names):
    with pytest.raises(ValueError, match="Received: "):
        corruption_names(names)


def test_seventeen_types_are_fast():
    images = pictures(count=50)
    start = time.process_time()
    for name in GROUPS["ovadia17"]:
        for severity in SEVERITIES:
            corrupt(images, name, severity=severity, seed=0)
    # 1,000 images may take 100 s.
    assert time.process_time() - start < 5


KILLED = """
import multiprocessing, os, pathlib, signal, sys, threading, time
import numpy as np
from data.corruptions.generation import generate_corrupted
def kill():
    while not (pathlib.Path(sys.argv[1]) / "contrast.npy").exists():
        time.sleep(0.01)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=kill).start()
images, labels = np.zeros((2000, 32, 32, 3), np.uint8), np.arange(2000) % 10
generate_corrupted(
    images, labels, sys.argv[1], dataset="toy", corruptions="contrast,all19", processes=2
)
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2 and parent.wait(timeout=60) == -signal.SIGKILL
        try:
            # The pipe is open for as long as a worker is there.
            assert select.select([parent.stdout], [], [], 60)[0] and not parent.stdout.read()
        finally:
            for worker in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)


def test_workers_import_no_tensorflow():
    """Each imports the module of the command again, and TensorFlow takes seconds."""
    code = "import data.corrupt, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
