import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.text import Text
from tensorflow import keras

from keras_autolabel import (
    PGD,
    AugMix,
    AutoLabelModel,
    HalfAdversarial,
    LabelTable,
    Mixup,
    OneHot,
    expected_calibration_error,
    plots,
    soft_targets,
)
from keras_autolabel.batch import without_partner
from keras_autolabel.plots.order import clean_first, evenly, sorted_rows

DISTANCE_2D = np.array([[0.9, 0.5, 0.1], [0.8, 0.6, 0.2]])
HISTORY_2D = 1.0 - np.arange(24).reshape(4, 2, 3) / 50.0  # [epochs, depths, buckets]


class Brighten:
    """A user's augmentation whose middle bucket is the cleanest: it adds its distance."""

    bucket_shape = (3,)
    distances = np.array([0.5, 0.25, 1.0], np.float32)

    def __call__(self, images, labels, *, seed, bucket=None, network=None):
        bucket = tf.broadcast_to(bucket, tf.shape(labels))
        distance = tf.gather(self.distances, bucket)
        images = tf.cast(images, tf.float32) + distance[:, None, None, None] / 2.0
        return without_partner(images, labels, distance=distance, bucket=bucket)


def network_of(num_classes, channels=1):
    return keras.Sequential(
        [
            keras.Input((6, 6, channels)),
            keras.layers.Flatten(),
            keras.layers.Dense(num_classes, kernel_initializer=keras.initializers.GlorotNormal(1)),
        ]
    )


def model_of(augmentation, *, num_classes=4, policy=None, channels=1):
    network = network_of(num_classes, channels)
    return AutoLabelModel(network, augmentation, num_classes=num_classes, label_policy=policy)


def images_of(count, channels=1):
    pixels = np.random.default_rng(0).integers(0, 120, [count, 6, 6, channels])
    return pixels.astype(np.uint8), np.arange(count) % 4


def shown_image(axes):
    return np.asarray(axes.images[0].get_array())


def captions(axes_of_row):
    return [axes.get_xlabel() for axes in axes_of_row]


def widths(axes):
    return [bar.get_width() for bar in axes.patches]


def texts_on(figure):
    """What is written in the figure, and where: [(text, box)]."""
    written, draw = [], Text.draw

    def record(text, renderer):
        if text.get_visible() and text.get_text().strip():
            written.append((text.get_text(), text.get_window_extent(renderer)))
        draw(text, renderer)

    with mock.patch.object(Text, "draw", record):
        FigureCanvasAgg(figure).draw()
    return written


# --- order and distances --------------------------------------------------------------------------


def test_buckets_are_ordered_by_their_mean_distance():
    assert clean_first(DISTANCE_2D).tolist() == [2, 1, 0]
    assert clean_first(np.array([0.5, 0.25, 1.0])).tolist() == [1, 0, 2]
    assert sorted_rows(HISTORY_2D, DISTANCE_2D).tolist() == HISTORY_2D[:, :, ::-1].tolist()
    assert evenly(10, 7).tolist() == [0, 1, 3, 4, 6, 7, 9]
    assert evenly(3, 7).tolist() == [0, 1, 2]


def test_bucket_distances_of_a_users_augmentation():
    assert plots.bucket_distances(Brighten(), (6, 6, 1), draws=2).tolist() == [0.5, 0.25, 1.0]


def test_bucket_distances_are_the_middles_of_the_buckets_whatever_their_direction():
    augmix = plots.bucket_distances(AugMix(num_buckets=4, max_depth=2), (6, 6, 3), draws=256)
    np.testing.assert_allclose(augmix, [[0.875, 0.625, 0.375, 0.125]] * 2, atol=0.03)
    mixup = plots.bucket_distances(Mixup(num_buckets=4), (6, 6, 1), draws=256)
    np.testing.assert_allclose(mixup, [0.125, 0.375, 0.625, 0.875], atol=0.03)
    attack = PGD(epsilon=0.1, num_buckets=2, num_steps=1)
    for augmentation in (attack, HalfAdversarial(attack)):
        distance = plots.bucket_distances(augmentation, (6, 6, 1), network=network_of(4), draws=256)
        np.testing.assert_allclose(distance, [0.25, 0.75], atol=0.05)


# --- tables ---------------------------------------------------------------------------------------


def test_label_history_puts_clean_on_the_left_in_lines_and_map():
    figure = plots.plot_label_history(HISTORY_2D, DISTANCE_2D)
    lines, maps = figure.axes[:2], figure.axes[2:4]
    for depth in range(2):
        np.testing.assert_array_equal(shown_image(maps[depth]), HISTORY_2D[:, depth, ::-1])
        last = lines[depth].lines[-1]
        np.testing.assert_array_equal(last.get_xdata(), DISTANCE_2D[depth, ::-1])
        np.testing.assert_array_equal(last.get_ydata(), HISTORY_2D[-1, depth, ::-1])
        assert lines[depth].get_xlabel() == "distance (clean on the left)"
        assert lines[depth].get_title() == f"depth {depth + 1}"
    assert [tick.get_text() for tick in maps[0].get_xticklabels()] == ["0.10", "0.50", "0.90"]
    assert [line.get_label() for line in lines[0].lines] == [f"epoch {n}" for n in (1, 2, 3, 4)]
    assert maps[0].get_ylabel() == "epoch"
    assert maps[0].images[0].get_clim() == (HISTORY_2D.min(), 1.0)
    # Epoch 1 is the lowest row of the map, and its middle stands at 1.
    assert maps[0].images[0].get_extent() == [-0.5, 2.5, 0.5, 4.5]
    assert maps[0].images[0].origin == "lower"


def test_label_history_of_many_epochs_draws_few_lines_and_names_rows():
    history = np.linspace([1.0, 1.0], [0.9, 0.5], num=41)
    figure = plots.plot_label_history(history, np.array([0.25, 0.75]), row_names=["mixup"])
    names = [line.get_label() for line in figure.axes[0].lines]
    assert names == ["epoch 1", "epoch 11", "epoch 21", "epoch 31", "epoch 41"]
    assert figure.axes[0].get_title() == "mixup"


def test_bucket_calibration_draws_the_tables_from_clean_to_far():
    accuracy, confidence = DISTANCE_2D / 2.0, DISTANCE_2D / 4.0
    figure = plots.plot_bucket_calibration(DISTANCE_2D / 8.0, accuracy, confidence, DISTANCE_2D)
    for depth in range(2):
        x = DISTANCE_2D[depth, ::-1]
        above, below = figure.axes[depth], figure.axes[2 + depth]
        by_name = {line.get_label(): line for line in [*above.lines, *below.lines]}
        for name, part in (("accuracy", 2.0), ("mean confidence", 4.0), ("ECE", 8.0)):
            np.testing.assert_array_equal(by_name[name].get_xdata(), x)
            np.testing.assert_array_equal(by_name[name].get_ydata(), x / part)
        assert isinstance(above.collections[0], FillBetweenPolyCollection)
        assert below.get_ylim()[0] == 0.0 < DISTANCE_2D.max() / 8.0 < below.get_ylim()[1]
    assert figure.axes[2].get_ylabel() == "ECE"


# --- reliability ----------------------------------------------------------------------------------


def test_reliability_shows_accuracy_gaps_and_histogram_of_each_bin():
    # Bins of width 1/5. Third: confidence 0.5, wrong. Fourth: 0.7 (right), 0.76 (wrong).
    # Fifth: 0.9, right.
    labels = [1, 0, 1, 0]
    probabilities = [[0.5, 0.4, 0.1], [0.7, 0.2, 0.1], [0.76, 0.2, 0.04], [0.9, 0.1, 0.0]]
    figure = plots.plot_reliability(labels, probabilities, num_bins=5)
    upper, lower = figure.axes
    bars = {container.get_label(): container.patches for container in upper.containers}
    assert [bar.get_height() for bar in bars["accuracy"]] == [0.0, 0.5, 1.0]
    middles = [bar.get_x() + bar.get_width() / 2 for bar in bars["accuracy"]]
    np.testing.assert_allclose(middles, [0.5, 0.7, 0.9])
    over = [(bar.get_y(), bar.get_height()) for bar in bars["gap: over-confident"]]
    np.testing.assert_allclose(over, [(0.0, 0.5), (0.5, 0.23)], atol=1e-6)
    under = [(bar.get_y(), bar.get_height()) for bar in bars["gap: under-confident"]]
    np.testing.assert_allclose(under, [(1.0, -0.1)], atol=1e-6)
    shares = [bar.get_height() for bar in lower.containers[0].patches]
    np.testing.assert_allclose(shares, [0, 0, 0.25, 0.5, 0.25])
    # ECE = (0.5 + 0.46 + 0.1) / 4.
    assert float(expected_calibration_error(labels, probabilities, num_bins=5)) == pytest.approx(
        0.265
    )
    title = figure.get_suptitle()
    for part in ("accuracy 50.0%", "mean confidence 71.5%", "ECE 26.5%", "4 examples"):
        assert part in title
    assert lower.get_xlabel().startswith("confidence")


@pytest.mark.parametrize(
    ("label", "missing", "shown"),
    [(1, "gap: under-confident", "gap: over-confident"), (0, "gap: over-confident", "gap: under")],
)
def test_reliability_leaves_a_gap_that_is_not_there_out_of_the_legend(label, missing, shown):
    figure = plots.plot_reliability([label], [[0.9, 0.1]])
    keys = [text.get_text() for text in figure.legends[0].get_texts()]
    assert missing not in keys and len(keys) == 3
    assert any(key.startswith(shown) for key in keys)


# --- images ---------------------------------------------------------------------------------------


def test_examples_of_augmix_have_a_row_for_each_image_and_depth_clean_first():
    model = model_of(AugMix(num_buckets=3, max_depth=2))
    table = np.array([[0.4, 0.7, 0.9], [0.3, 0.6, 0.8]])
    model.label_policy.confidence.assign(table)
    images, labels = images_of(3)
    figure = plots.plot_examples(model, images, labels, class_names=list("abcd"), seed=5)
    grid = np.reshape(figure.axes, (4, 4))
    for row, (index, depth) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        expected = images[index, ..., 0] / 255.0
        np.testing.assert_allclose(shown_image(grid[row, 0]), expected, atol=1e-6)
        assert grid[row, 0].get_ylabel() == f"{'abcd'[index]}\ndepth {depth + 1}"
        assert grid[row, 0].get_xlabel() == "original"
        for column, bucket in enumerate([2, 1, 0], start=1):
            batch = model.augmentation(
                images, labels, seed=tf.constant([5, 0]), bucket=depth * 3 + bucket
            )
            moved = batch.images[index, ..., 0].numpy()
            np.testing.assert_allclose(shown_image(grid[row, column]), moved, atol=1e-6)
            distance = float(batch.distance[index])
            assert grid[row, column].get_xlabel() == (
                f"distance {distance:.2f}\nỹ = {table[depth, bucket]:.2f}"
            )


def test_examples_of_mixup_name_both_classes():
    model = model_of(Mixup(num_buckets=2))
    images, labels = images_of(4)
    for seed in range(3):
        figure = plots.plot_examples(model, images, labels, seed=seed, max_images=4)
        batch = model.augmentation(images, labels, seed=tf.constant([seed, 0]), bucket=1)
        target = soft_targets(
            tf.constant(labels, tf.int32),
            tf.fill([4], 0.625),
            num_classes=4,
            partners=batch.partners,
            mix=batch.mix,
        ).numpy()
        far = captions(np.reshape(figure.axes, (4, 3))[:, -1])
        for label, partner, caption, share in zip(labels, batch.partners, far, target, strict=True):
            lines = caption.split("\n")[1:]
            if partner == label:
                assert lines == [f"ỹ = {share[label]:.2f}"]
            else:
                numbers = (f"class {k} {share[k]:.2f}" for k in (label, int(partner)))
                assert lines == list(numbers)


def test_examples_show_a_users_cleanest_bucket_first_and_different_classes():
    model = model_of(Brighten(), policy=LabelTable((3,), initial=[0.8, 0.9, 0.5]), channels=3)
    images = np.linspace(0.0, 0.3, 9, dtype=np.float32)[:, None, None, None] * np.ones((6, 6, 3))
    labels = np.array([0] * 8 + [1])
    figure = plots.plot_examples(model, images, labels, max_images=2)
    grid = np.reshape(figure.axes, (2, 4))
    texts = ["original", "distance 0.25\nỹ = 0.90", "distance 0.50\nỹ = 0.80"]
    assert captions(grid[0]) == [*texts, "distance 1.00\nỹ = 0.50"]
    assert [row[0].get_ylabel() for row in grid] == ["class 0", "class 1"]
    np.testing.assert_allclose(shown_image(grid[1, 1]), images[8] + 0.125, atol=1e-6)


def test_examples_show_at_most_seven_buckets_and_a_policy_without_a_table():
    model = model_of(PGD(epsilon=0.1, num_buckets=9, num_steps=1), policy=OneHot())
    figure = plots.plot_examples(model, *images_of(2))
    grid = np.reshape(figure.axes, (2, 8))
    distances = [float(text.split()[1]) for text in captions(grid[0])[1:]]
    assert distances == sorted(distances)
    assert all(text.endswith("ỹ = 1.00") for text in captions(grid[0])[1:])


def test_figure_1_draws_the_label_of_each_distance():
    model = model_of(AugMix(num_buckets=3, max_depth=2))
    model.label_policy.confidence.assign([[0.4, 0.7, 0.9], [0.3, 0.6, 0.8]])
    images, _ = images_of(1)
    figure = plots.plot_figure_1(model, images[0], 2, class_names=list("abcd"))
    above, below = figure.subfigs
    grid = np.reshape(above.axes, (2, 6))
    for column, confidence in enumerate([0.8, 0.6, 0.3], start=1):
        expected = soft_targets([2], tf.constant([confidence]), num_classes=4)[0]
        np.testing.assert_allclose(widths(grid[1, column]), expected, atol=1e-6)
    distances = [float(text.split()[1]) for text in captions(grid[0, 1:4])]
    assert distances == sorted(distances)
    assert [text.get_text() for text in grid[1, 0].texts] == list("abcd")
    titles = captions(below.axes)
    assert titles[0] == "(i) original"
    assert [title.split(",")[0] for title in titles[1:]] == [
        "(ii) depth 1",
        "(iii) depth 2",
        "(iv) depth 2",
    ]
    far = [float(title.split()[-1]) for title in titles[1:]]
    assert far[1] < far[0] and far[1] < far[2]
    clean = shown_image(below.axes[0])
    assert all(np.abs(shown_image(axes) - clean).max() > 0.002 for axes in below.axes[1:])


def test_figure_1_of_many_classes_sums_up_the_others():
    model = model_of(Mixup(num_buckets=1), num_classes=1000, policy=LabelTable((1,), initial=0.5))
    images, labels = images_of(3)
    figure = plots.plot_figure_1(model, images[0], 7, others=(images[1:], labels[1:]))
    grid = np.reshape(figure.subfigs[0].axes, (2, 6))
    names = [text.get_text() for text in grid[1, 0].texts]
    assert names[0] == "class 7" and names[1] in ("class 1", "class 2")
    assert names[2] == "998 others"
    distance = float(grid[0, 1].get_xlabel().split()[1])
    mix = distance / 2.0
    partner = 0.5 * mix / (1.0 - mix)
    np.testing.assert_allclose(widths(grid[1, 1]), [0.5, partner, 0.5 - partner], atol=0.01)


@pytest.mark.parametrize(
    ("augmentation", "policy"),
    [(None, None), (HalfAdversarial(PGD(epsilon=0.1, num_buckets=2, num_steps=1)), OneHot())],
)
def test_figure_1_of_two_classes_without_a_table(augmentation, policy):
    model = model_of(augmentation, num_classes=2, policy=policy)
    images, _ = images_of(1)
    figure = plots.plot_figure_1(model, images[0], 1, class_names=["no", "yes"])
    grid = np.reshape(figure.subfigs[0].axes, (2, 6))
    assert [text.get_text() for text in grid[1, 0].texts] == ["no", "yes"]
    assert widths(grid[1, 1]) == [0.0, 1.0]


# --- comparisons ----------------------------------------------------------------------------------

ROWS = {
    "AugMix": [("clean", 0, 0.01), ("fog", 1, 0.02), ("snow", 1, 0.06), ("fog", 2, 0.1)],
    "+ AutoLabel": [("clean", 0, 0.01), ("fog", 1, 0.02), ("snow", 1, 0.03), ("jpeg", 1, 0.07)],
}


def test_ece_by_severity_draws_means_and_boxes():
    axes = plots.plot_ece_by_severity(ROWS).axes[0]
    means = {line.get_label(): line for line in axes.lines if line.get_label() in ROWS}
    np.testing.assert_allclose(means["AugMix"].get_ydata(), [0.01, 0.04, 0.1])
    np.testing.assert_allclose(means["AugMix"].get_xdata(), [-0.2, 0.8, 1.8])
    np.testing.assert_allclose(means["+ AutoLabel"].get_ydata(), [0.01, 0.04])
    # The middle half of 0.02, 0.03, 0.07 reaches from 0.025 to 0.05.
    box = axes.patches[1].get_path().vertices[:-1, 1]
    np.testing.assert_allclose((box.min(), box.max()), (0.025, 0.05))
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["clean", "1", "2"]
    assert axes.get_xlabel() == "severity of the corruption"
    assert axes.get_ylabel() == "ECE"


def test_accuracy_by_epsilon_draws_a_line_for_each_model_sorted_by_epsilon():
    accuracies = {"AT": [0.5, 0.9], "AT + AutoLabel": [0.6, 0.95], "hidden": [0.0, 0.0]}
    names = ["AT + AutoLabel", "AT"]
    axes = plots.plot_accuracy_by_epsilon([0.02, 0.0], accuracies, names=names).axes[0]
    assert [line.get_label() for line in axes.lines] == names
    assert [line.get_xdata().tolist() for line in axes.lines] == [[0.0, 0.02]] * 2
    assert [line.get_ydata().tolist() for line in axes.lines] == [[0.95, 0.6], [0.9, 0.5]]
    assert "norm" in axes.get_xlabel() and axes.get_ylabel() == "accuracy"


# --- all figures ----------------------------------------------------------------------------------


def draw_history():
    history = np.linspace(np.ones((3, 10)), np.linspace([0.2] * 3, [0.9] * 3, 10, axis=1), num=60)
    return plots.plot_label_history(history, np.tile(np.linspace(0.95, 0.05, 10), (3, 1)))


def draw_history_of_one_axis():
    history = np.linspace(np.ones(10), np.linspace(0.9, 0.2, 10), num=60)
    return plots.plot_label_history(history, np.linspace(0.05, 0.95, 10))


def draw_calibration():
    table = np.tile(np.linspace(0.95, 0.05, 10), (3, 1))
    return plots.plot_bucket_calibration(table / 5.0, 1.0 - table / 2.0, 1.0 - table / 3.0, table)


def draw_reliability():
    probabilities = np.random.default_rng(0).dirichlet(np.full(10, 0.3), 2000)
    return plots.plot_reliability(np.argmax(probabilities, axis=-1) // 2, probabilities)


def draw_examples():
    model = model_of(Mixup(num_buckets=7))
    names = [f"{letter}: a name that is far too long" for letter in "abcd"]
    return plots.plot_examples(model, *images_of(4), class_names=names)


def draw_examples_of_two_axes():
    model = model_of(AugMix(num_buckets=7, max_depth=3), channels=3)
    names = [f"{letter}: a name that is far too long" for letter in "abcd"]
    return plots.plot_examples(model, *images_of(2, channels=3), class_names=names)


def draw_figure_1():
    model = model_of(Mixup(num_buckets=5), num_classes=10)
    images, labels = images_of(4)
    names = [f"{number}: a name that is far too long" for number in range(10)]
    return plots.plot_figure_1(
        model, images[0], 3, class_names=names, others=(images[1:], labels[1:])
    )


def draw_severity():
    return plots.plot_ece_by_severity(ROWS)


def draw_attacks():
    return plots.plot_accuracy_by_epsilon([0.0, 0.02, 0.03, 0.04], {"AT": [0.9, 0.5, 0.3, 0.1]})


@pytest.mark.parametrize(
    "draw",
    [
        draw_history,
        draw_history_of_one_axis,
        draw_calibration,
        draw_reliability,
        draw_examples,
        draw_examples_of_two_axes,
        draw_figure_1,
        draw_severity,
        draw_attacks,
    ],
)
def test_figures_need_no_pyplot_have_no_overlapping_text_and_are_saved(draw, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    figure = draw()
    written = texts_on(figure)
    assert len(written) > 5
    for number, (text, box) in enumerate(written):
        # A pixel of touching is no overlap; nothing may leave the picture either.
        inner = box.padded(-1.0)
        assert figure.bbox.x0 <= inner.x0 and inner.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= inner.y0 and inner.y1 <= figure.bbox.y1, text
        for other, other_box in written[number + 1 :]:
            assert not inner.overlaps(other_box.padded(-1.0)), (text, other)
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"


def test_a_missing_matplotlib_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        plots.plot_reliability([0], [[0.9, 0.1]])


def test_the_package_is_imported_without_matplotlib():
    code = "import sys; sys.modules['matplotlib'] = None; import keras_autolabel.plots"
    subprocess.run([sys.executable, "-c", code], check=True)


MODEL = model_of(None)
IMAGES, LABELS = images_of(2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.bucket_distances(Brighten(), (6, 6, 1), draws=0), "draws"),
        (lambda: plots.plot_label_history(DISTANCE_2D, DISTANCE_2D), r"\[epochs, \*bucket_shape\]"),
        (lambda: plots.plot_label_history(HISTORY_2D, DISTANCE_2D.T), "shape of the label table"),
        (lambda: plots.plot_label_history(HISTORY_2D, DISTANCE_2D, row_names=["a"]), "2 rows"),
        (
            lambda: plots.plot_bucket_calibration(
                DISTANCE_2D, DISTANCE_2D, DISTANCE_2D[0], DISTANCE_2D
            ),
            "confidence must have",
        ),
        (lambda: plots.plot_reliability([], np.zeros([0, 2])), "at least one"),
        (lambda: plots.plot_reliability([0, 1], [[0.5, 0.5]]), "same number"),
        (lambda: plots.plot_examples(MODEL, IMAGES, LABELS, class_names=["a"]), "4 classes"),
        (lambda: plots.plot_examples(MODEL, IMAGES, LABELS[:1]), "same number"),
        (lambda: plots.plot_examples(MODEL, IMAGES, LABELS, max_images=0), "max_images"),
        (lambda: plots.plot_ece_by_severity({"AugMix": []}), "none of: AugMix"),
        (lambda: plots.plot_ece_by_severity(ROWS, names=["mixup"]), "names must be"),
        (lambda: plots.plot_accuracy_by_epsilon([0.0], {"AT": [0.9, 0.5]}), "one accuracy"),
        (lambda: plots.plot_accuracy_by_epsilon([0.0], {}), "no model"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
