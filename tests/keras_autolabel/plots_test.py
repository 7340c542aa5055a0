import sys
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
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
    plots,
    soft_targets,
)

TABLE = np.array([[0.95, 0.8, 0.6], [0.9, 0.7, 0.4]])  # [depths, buckets]
HISTORY = 1.0 - np.arange(24).reshape(4, 2, 3) / 50.0  # [epochs, depths, buckets]


def model_of(augmentation, *, num_classes=4, policy=None, channels=1):
    dense = keras.layers.Dense(num_classes, kernel_initializer=keras.initializers.GlorotNormal(1))
    inputs = keras.Input((6, 6, channels))
    network = keras.Sequential([inputs, keras.layers.Flatten(), dense])
    return AutoLabelModel(network, augmentation, num_classes=num_classes, label_policy=policy)


def images_of(count, channels=1):
    pixels = np.random.default_rng(0).integers(0, 120, [count, 6, 6, channels])
    return pixels.astype(np.uint8), np.arange(count) % 4


def shown_image(axes):
    return np.asarray(axes.images[0].get_array())


def captions(axes_of_row):
    return [axes.get_xlabel() for axes in axes_of_row]


def distances_in(axes_of_row):
    return [float(text.split()[1]) for text in captions(axes_of_row)]


def widths(axes):
    return [bar.get_width() for bar in axes.patches]


def lines_of(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines}


# --- tables ---------------------------------------------------------------------------------------


def test_label_history_draws_each_bucket_at_its_middle_and_a_column_for_each_row():
    figure = plots.plot_label_history(HISTORY)
    lines, maps = figure.axes[:2], figure.axes[2:4]
    for depth in range(2):
        assert lines[depth].get_title() == f"depth {depth + 1}"
        assert list(lines_of(lines[depth])) == [f"epoch {n}" for n in (1, 2, 3, 4)]
        for epoch, line in enumerate(lines[depth].lines):
            np.testing.assert_allclose(line.get_xdata(), [1 / 6, 3 / 6, 5 / 6])
            np.testing.assert_array_equal(line.get_ydata(), HISTORY[epoch, depth])
        np.testing.assert_array_equal(shown_image(maps[depth]), HISTORY[:, depth])
        # Clean is on the left; epoch 1 is the lowest row of the map, and its middle stands at 1.
        assert maps[depth].images[0].get_extent() == [0.0, 1.0, 0.5, 4.5]
        assert maps[depth].images[0].origin == "lower"
        assert maps[depth].images[0].get_clim() == (HISTORY.min(), 1.0)
        low, high = lines[depth].get_ylim()
        assert low < HISTORY.min() and high > 1.0


def test_label_history_of_many_epochs_draws_few_lines_and_names_rows():
    history = np.linspace([1.0, 1.0], [0.98, 0.97], num=41)
    figure = plots.plot_label_history(history, row_names=["mixup"])
    assert list(lines_of(figure.axes[0])) == [f"epoch {n}" for n in (1, 11, 21, 31, 41)]
    assert figure.axes[0].get_title() == "mixup"
    # Labels that hardly moved are not blown up.
    assert figure.axes[0].get_ylim()[0] <= 0.95
    assert figure.axes[1].images[0].get_clim() == (0.95, 1.0)


@pytest.mark.parametrize("epochs", [1, 4])
def test_one_bucket_a_row_is_drawn_over_the_epochs(epochs):
    (axes,) = plots.plot_label_history(HISTORY[:epochs, :, :1]).axes
    for depth in range(2):
        expected = [[epoch + 1.0, HISTORY[epoch, depth, 0]] for epoch in range(epochs)]
        assert lines_of(axes)[f"depth {depth + 1}"] == expected
    assert not axes.images and axes.get_xlabel() == "epoch"
    assert axes.get_ylim()[0] < HISTORY[:epochs, :, 0].min()
    (alone,) = plots.plot_label_history(HISTORY[:epochs, 0, :1]).axes
    assert alone.lines[0].get_ydata().tolist() == HISTORY[:epochs, 0, 0].tolist()
    assert not alone.figure.legends


def test_bucket_calibration_draws_the_tables_at_the_middles_of_the_buckets():
    figure = plots.plot_bucket_calibration(TABLE / 8.0, TABLE / 2.0, TABLE / 4.0)
    x = [1 / 6, 3 / 6, 5 / 6]
    for depth in range(2):
        above, below = figure.axes[depth], figure.axes[2 + depth]
        drawn = lines_of(above) | lines_of(below)
        for name, part in (("accuracy", 2.0), ("mean confidence", 4.0), ("ECE", 8.0)):
            np.testing.assert_allclose(drawn[name], np.transpose([x, TABLE[depth] / part]))
        gap = above.collections[0].get_datalim(above.transData)
        np.testing.assert_allclose(
            [gap.x0, gap.y0, gap.x1, gap.y1],
            [1 / 6, TABLE[depth, 2] / 4, 5 / 6, TABLE[depth, 0] / 2],
        )
        assert above.get_xlim() == (0.0, 1.0) and below.get_ylim()[0] == 0.0
    assert figure.axes[2].get_ylabel() == "ECE"


# --- reliability ----------------------------------------------------------------------------------


def test_reliability_shows_accuracy_gaps_and_histogram_of_each_bin():
    # Bins of width 1/5. Third: confidence 0.5, wrong. Fourth: 0.7 (right), 0.76 (wrong).
    # Fifth: 0.9, right. ECE = (0.5 + 0.46 + 0.1) / 4.
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
    for part in ("accuracy 50.0%", "mean confidence 71.5%", "ECE 26.5%", "4 examples"):
        assert part in figure.get_suptitle()


@pytest.mark.parametrize(("label", "shown"), [(1, "gap: over"), (0, "gap: under")])
def test_reliability_leaves_a_gap_that_is_not_there_out_of_the_legend(label, shown):
    figure = plots.plot_reliability([label], [[0.9, 0.1]])
    keys = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(keys) == 3 and any(key.startswith(shown) for key in keys)


# --- images ---------------------------------------------------------------------------------------


def test_examples_of_two_axes_have_a_row_for_each_image_and_depth_clean_first():
    model = model_of(AugMix(num_buckets=3, max_depth=2))
    model.label_policy.confidence.assign(TABLE)
    images, labels = images_of(3)
    figure = plots.plot_examples(model, images, labels, class_names=list("abcd"), seed=5)
    grid = np.reshape(figure.axes, (4, 4))
    for row, (index, depth) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        expected = images[index, ..., 0] / 255.0
        np.testing.assert_allclose(shown_image(grid[row, 0]), expected, atol=1e-6)
        assert grid[row, 0].get_ylabel() == f"{'abcd'[index]}\ndepth {depth + 1}"
        for bucket in range(3):
            batch = model.augmentation(
                images, labels, seed=tf.constant([5, 0]), bucket=depth * 3 + bucket
            )
            axes, moved = grid[row, 1 + bucket], batch.images[index, ..., 0]
            np.testing.assert_allclose(shown_image(axes), moved, atol=1e-6)
            assert axes.get_xlabel() == (
                f"distance {batch.distance[index]:.2f}\nỹ = {TABLE[depth, bucket]:.2f}"
            )
        distances = distances_in(grid[row, 1:])
        assert distances == sorted(distances)


def test_examples_of_mixup_name_both_classes():
    model = model_of(Mixup(num_buckets=2))
    images, labels = images_of(4)
    for seed in range(3):
        figure = plots.plot_examples(model, images, labels, seed=seed, max_images=4)
        batch = model.augmentation(images, labels, seed=tf.constant([seed, 0]), bucket=1)
        mixed = {"partners": batch.partners, "mix": batch.mix, "num_classes": 4}
        target = soft_targets(batch.labels, tf.fill([4], 0.625), **mixed).numpy()
        far = captions(np.reshape(figure.axes, (4, 3))[:, -1])
        for label, partner, caption, share in zip(labels, batch.partners, far, target, strict=True):
            lines = [f"class {k} {share[k]:.2f}" for k in (label, int(partner))]
            if partner == label:
                lines = [f"ỹ = {share[label]:.2f}"]
            assert caption.split("\n")[1:] == lines


def test_examples_without_augmentation_show_different_classes_in_colour():
    images = np.linspace(0.0, 1.0, 9 * 108, dtype=np.float32).reshape(9, 6, 6, 3)
    labels = np.array([0] * 8 + [1])
    figure = plots.plot_examples(model_of(None, channels=3), images, labels, max_images=2)
    grid = np.reshape(figure.axes, (2, 2))
    assert [row[0].get_ylabel() for row in grid] == ["class 0", "class 1"]
    assert captions(grid[1]) == ["original", "distance 0.00\nỹ = 1.00"]
    for axes in grid[1]:
        np.testing.assert_array_equal(shown_image(axes), images[8])


def test_examples_show_seven_buckets_from_the_first_to_the_last_and_a_policy_without_a_table():
    attack = PGD(epsilon=0.1, num_buckets=9, num_steps=1)
    figure = plots.plot_examples(model_of(attack, policy=OneHot()), *images_of(2))
    row = np.reshape(figure.axes, (2, 8))[0, 1:]
    assert [int(9 * distance) for distance in distances_in(row)] == [0, 1, 3, 4, 5, 7, 8]
    assert all(text.endswith("ỹ = 1.00") for text in captions(row))


def test_figure_1_draws_the_label_of_each_distance_and_what_moved():
    model = model_of(AugMix(num_buckets=3, max_depth=2))
    model.label_policy.confidence.assign(TABLE)
    images, _ = images_of(1)
    figure = plots.plot_figure_1(model, images[0], 2, class_names=list("abcd"))
    above, below = figure.subfigs
    grid = np.reshape(above.axes, (2, 6))
    for column, confidence in enumerate(TABLE[1], start=1):
        expected = soft_targets([2], tf.constant([confidence]), num_classes=4)[0]
        np.testing.assert_allclose(widths(grid[1, column]), expected, atol=1e-6)
    distances = distances_in(grid[0, 1:4])
    assert distances == sorted(distances)
    assert [text.get_text() for text in grid[1, 0].texts] == list("abcd")
    depths = [text.split(",")[0] for text in captions(below.axes[1:])]
    assert depths == ["(ii) depth 1", "(iii) depth 2", "(iv) depth 2"]
    short, half, long = (float(text.split()[-1]) for text in captions(below.axes[1:]))
    assert half < short and half < long
    clean = shown_image(below.axes[0])
    assert all(np.abs(shown_image(axes) - clean).max() > 0.002 for axes in below.axes[1:])


def test_figure_1_of_many_classes_sums_up_the_others():
    model = model_of(Mixup(num_buckets=2), num_classes=1000, policy=LabelTable((2,), initial=0.5))
    images, labels = images_of(3)
    figure = plots.plot_figure_1(model, images[0], 7, others=(images[1:], labels[1:]))
    grid = np.reshape(figure.subfigs[0].axes, (2, 6))
    names = [text.get_text() for text in grid[1, 0].texts]
    assert names[0] == "class 7" and names[1] in ("class 1", "class 2")
    assert names[2] == "998 others"
    assert len({bar.get_facecolor() for bar in grid[1, 1].patches}) == 3
    mix = distances_in([grid[0, 1]])[0] / 2.0
    partner = 0.5 * mix / (1.0 - mix)
    np.testing.assert_allclose(widths(grid[1, 1]), [0.5, partner, 0.5 - partner], atol=0.01)


@pytest.mark.parametrize(
    ("augmentation", "buckets"),
    [(None, 1), (HalfAdversarial(PGD(epsilon=0.1, num_buckets=2, num_steps=1)), 2)],
)
def test_figure_1_of_two_classes_without_a_table(augmentation, buckets):
    model = model_of(augmentation, num_classes=2, policy=OneHot())
    figure = plots.plot_figure_1(model, images_of(1)[0][0], 1, class_names=["no", "yes"])
    grid = np.reshape(figure.subfigs[0].axes, (2, 6))
    assert [text.get_text() for text in grid[1, 0].texts] == ["no", "yes"]
    assert [widths(axes) for axes in grid[1, 1:]] == [[0.0, 1.0]] * buckets + [[]] * (5 - buckets)
    distances = distances_in(grid[0, 1 : 1 + buckets])
    assert distances == sorted(distances)


# --- comparisons ----------------------------------------------------------------------------------

ROWS = {
    "runs/augmix": [("clean", 0, 0.01), ("fog", 1, 0.02), ("snow", 1, 0.06), ("fog", 2, 0.1)],
    "runs/table": [("clean", 0, 0.01), ("fog", 1, 0.02), ("snow", 1, 0.03), ("jpeg", 1, 0.07)],
}


def test_ece_by_severity_draws_means_and_boxes_under_short_names():
    axes = plots.plot_ece_by_severity(ROWS).axes[0]
    means = lines_of(axes)
    np.testing.assert_allclose(means["augmix"], [(-0.2, 0.01), (0.8, 0.04), (1.8, 0.1)])
    np.testing.assert_allclose(means["table"], [(0.2, 0.01), (1.2, 0.04)])
    # The middle half of 0.02, 0.03, 0.07 reaches from 0.025 to 0.05.
    box = axes.patches[1].get_path().vertices[:-1, 1]
    np.testing.assert_allclose((box.min(), box.max()), (0.025, 0.05))
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["clean", "1", "2"]


def test_accuracy_by_epsilon_starts_at_the_clean_accuracy():
    accuracies = {"runs/a": {0.02: 0.5, 0.0: 0.9}, "runs/b": {0.0: 0.95, 0.02: 0.6}}
    axes = plots.plot_accuracy_by_epsilon(accuracies).axes[0]
    assert lines_of(axes) == {"a": [[0.0, 0.9], [0.02, 0.5]], "b": [[0.0, 0.95], [0.02, 0.6]]}
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["clean", "0.02"]


# --- all figures ----------------------------------------------------------------------------------

LONG_NAMES = [f"{number}: a name that is far too long" for number in range(10)]
FAR = np.linspace([0.05] * 3, [0.95] * 3, 10, axis=1)
FIGURES = {
    "history": lambda: plots.plot_label_history(np.linspace(np.ones((3, 10)), 1.0 - FAR, 60)),
    "history of one row": lambda: plots.plot_label_history(np.linspace(np.ones(10), FAR[0], 60)),
    "history of one bucket": lambda: plots.plot_label_history(HISTORY[:, :, :1]),
    "calibration": lambda: plots.plot_bucket_calibration(FAR / 5.0, 1 - FAR / 2.0, 1 - FAR / 3.0),
    "reliability": lambda: plots.plot_reliability(
        np.arange(2000) % 7, np.random.default_rng(0).dirichlet(np.full(10, 0.3), 2000)
    ),
    "examples": lambda: plots.plot_examples(
        model_of(Mixup(num_buckets=7)), *images_of(4), class_names=LONG_NAMES[:4]
    ),
    "examples of two axes": lambda: plots.plot_examples(
        model_of(AugMix(num_buckets=7), channels=3), *images_of(2, 3), class_names=LONG_NAMES[:4]
    ),
    "figure 1": lambda: plots.plot_figure_1(
        model_of(Mixup(num_buckets=5), num_classes=10),
        *(part[0] for part in images_of(1)),
        class_names=LONG_NAMES,
        others=images_of(4),
    ),
    "severity": lambda: plots.plot_ece_by_severity(ROWS),
    "attacks": lambda: plots.plot_accuracy_by_epsilon({"a": {0.0: 0.9, 0.02: 0.5, 0.03: 0.3}}),
}


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_figures_need_no_pyplot_and_no_text_overlaps_or_leaves_them(draw, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    figure = draw()
    written, plain_draw = [], Text.draw

    def record(text, renderer):
        if text.get_visible() and text.get_text().strip():
            # A pixel of touching is no overlap.
            box = text.get_window_extent(renderer).padded(-1.0)
            written.append((text.get_text(), box))
        plain_draw(text, renderer)

    with mock.patch.object(Text, "draw", record):
        FigureCanvasAgg(figure).draw()
    assert len(written) > 5
    for number, (text, box) in enumerate(written):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text
        for other, other_box in written[number + 1 :]:
            assert not box.overlaps(other_box), (text, other)


def test_a_missing_matplotlib_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        plots.plot_reliability([0], [[0.9, 0.1]])


MODEL = model_of(None)
IMAGES, LABELS = images_of(2)


@pytest.mark.parametrize(
    ("call", "received"),
    [
        (lambda: plots.plot_label_history(TABLE[0]), r"\(3,\)"),
        (lambda: plots.plot_label_history(HISTORY[:0]), r"\(0, 2, 3\)"),
        (lambda: plots.plot_label_history(HISTORY, row_names=["a"]), r"2 rows.*\['a'\]"),
        (lambda: plots.plot_bucket_calibration(TABLE, TABLE, TABLE[0]), r"\(2, 3\).*\(3,\)"),
        (lambda: plots.plot_bucket_calibration(0.1, 0.2, 0.3), r"\(\)"),
        (lambda: plots.plot_reliability([], np.zeros([0, 2])), r"\(0,\)"),
        (lambda: plots.plot_reliability([0, 1], [[0.5, 0.5]]), r"\(2,\).*\(1, 2\)"),
        (lambda: plots.plot_reliability_of_sums(np.zeros([5, 3])), "no example"),
        (lambda: plots.plot_examples(MODEL, IMAGES, LABELS, class_names=["a"]), "4 classes.* 1"),
        (lambda: plots.plot_examples(MODEL, IMAGES, LABELS[:1]), "2 images, 1 labels"),
        (lambda: plots.plot_examples(MODEL, IMAGES, LABELS, max_images=0), "max_images=0"),
        (lambda: plots.plot_ece_by_severity(ROWS | {"mixup": []}), "of: mixup"),
        (lambda: plots.plot_accuracy_by_epsilon({"a": {0.0: 0.9}, "b": {0.02: 0.5}}), "of: b"),
        (lambda: plots.plot_accuracy_by_epsilon({}), "no model"),
    ],
)
def test_what_does_not_fit_is_refused(call, received):
    with pytest.raises(ValueError, match=received):
        call()
