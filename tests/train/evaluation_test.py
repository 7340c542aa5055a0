import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import data
from data import corrupted_sets
from data.corrupted_sets import generate_corrupted
from keras_autolabel import projected_gradient_descent
from tests.conftest import linear_network
from train.evaluation import (
    ATTACK_LOSSES,
    MEANS,
    Row,
    describe_corrupted,
    figures_of,
    mean_over_corruptions,
    robust_accuracy,
    scores_of,
    scores_of_sets,
)

CLASSES, EXAMPLES = 4, 20
LABELS = np.arange(EXAMPLES) % CLASSES
# The class that the network reads out of a pixel gets ln 12: 12 / (12 + 3 * 1) = 0.8.
SURE = np.log(12.0)


@dataclasses.dataclass
class HandMade:
    """What evaluation needs of a ``Predictor``, around any function."""

    network: Callable
    name: str = "hand-made"

    def logits(self, images: np.ndarray) -> np.ndarray:
        return self.network(tf.cast(images, tf.float32) / 255.0, training=False).numpy()


def _read_class(images, training=False):
    number = tf.cast(tf.round(images[:, 0, 0, 0] * 255.0 / 20.0), tf.int32)
    return tf.one_hot(number, CLASSES) * SURE


def _images_that_say(classes: np.ndarray, channels: int = 1) -> np.ndarray:
    """uint8 [M, 16, 16, channels]: the class times 20 in every pixel."""
    pixels = (np.asarray(classes) * 20).astype(np.uint8)
    return np.broadcast_to(pixels[:, None, None, None], (len(pixels), 16, 16, channels)).copy()


def _wrong(severity: int) -> np.ndarray:
    """The classes, but 2 more out of 20 say the next class with every severity."""
    return (LABELS + (np.arange(EXAMPLES) < 2 * severity)) % CLASSES


@pytest.fixture
def published(tmp_path):
    """A set in the layout of CIFAR-10-C: fog misleads 10% more with each severity."""
    np.save(tmp_path / "labels.npy", np.tile(LABELS, 5))
    fog = [_images_that_say(_wrong(severity)) for severity in range(1, 6)]
    np.save(tmp_path / "fog.npy", np.concatenate(fog))
    np.save(tmp_path / "brightness.npy", np.tile(_images_that_say(LABELS), (5, 1, 1, 1)))
    return tmp_path


def _splits(*, channels=1, labels=LABELS, names=("n00", "n01", "n02", "n03")) -> data.Splits:
    """Clean data, of which only the test images are looked at."""
    test = data.Split(_images_that_say(labels, channels), np.asarray(labels, np.int32))
    return data.Splits("toy", "hand-made", test, test, test, names)


def _rows(
    network,
    directory,
    *,
    splits=None,
    temperatures=(1.0,),
    batch_size=7,
    corruptions=None,
    chosen=None,
):
    sets = scores_of_sets(
        HandMade(network),
        splits or _splits(),
        temperatures,
        str(directory),
        corruptions=corruptions,
        severities=chosen,
        batch_size=batch_size,
        num_bins=15,
    )
    return [
        Row("hand-made", corruption, severity, temperature, score.figures())
        for corruption, severity, scores in sets
        for temperature, score in zip(temperatures, scores, strict=True)
        if severity
    ]


@pytest.mark.parametrize("batch_size", [7, 100])
def test_published_set_gives_the_figures_of_its_making(published, batch_size):
    rows = _rows(_read_class, published, batch_size=batch_size)
    assert [(row.corruption, row.severity) for row in rows] == [
        (name, severity) for name in ("fog", "brightness") for severity in range(1, 6)
    ]
    assert {(row.model, row.temperature) for row in rows} == {("hand-made", 1.0)}
    # All confidences are 0.8, so that the ECE is the distance of the accuracy from it.
    for row in rows:
        accuracy = 1.0 - row.severity / 10 if row.corruption == "fog" else 1.0
        assert row.figures["examples"] == EXAMPLES
        assert row.figures["accuracy"] == pytest.approx(accuracy)
        assert row.figures["ece"] == pytest.approx(abs(accuracy - 0.8), abs=1e-5)
        nll = -accuracy * np.log(0.8) - (1 - accuracy) * np.log(0.2 / 3)
        assert row.figures["nll"] == pytest.approx(nll, rel=1e-5)
    # Fog: mean of 0.9 to 0.5, and of 0.1, 0, 0.1, 0.2, 0.3; brightness: 1, and 0.2.
    means = mean_over_corruptions(rows)
    assert means["cacc"] == pytest.approx((0.7 + 1.0) / 2)
    assert means["cece"] == pytest.approx((0.14 + 0.2) / 2, abs=1e-5)
    # Signed, fog has -0.1, 0, 0.1, 0.2, 0.3, and brightness -0.2.
    assert means["cgap"] == pytest.approx((0.1 - 0.2) / 2, abs=1e-5)
    assert means["cgap_size"] == pytest.approx((0.14 + 0.2) / 2, abs=1e-5)
    # Twenty confidences of 0.8 in one bin; without the floor three of the ten sets have no error.
    floor = np.sqrt(2 / np.pi * 0.8 * 0.2 / 20)
    assert means["cece_floor"] == pytest.approx(floor, rel=1e-5)
    errors = np.maximum(np.array([0.1, 0.0, 0.1, 0.2, 0.3] + 5 * [0.2]) ** 2 - floor**2, 0.0)
    assert means["cece_debiased"] == pytest.approx(np.sqrt(errors).mean(), rel=1e-4)


def test_temperature_changes_the_ece_and_nothing_that_is_predicted(published):
    rows = _rows(_read_class, published, temperatures=(1.0, 2.0))
    confidence = np.sqrt(12.0) / (np.sqrt(12.0) + 3.0)
    for plain, scaled in zip(rows[::2], rows[1::2], strict=True):
        assert (plain.temperature, scaled.temperature) == (1.0, 2.0)
        assert (plain.corruption, plain.severity) == (scaled.corruption, scaled.severity)
        assert plain.figures["accuracy"] == scaled.figures["accuracy"]
        ece = abs(scaled.figures["accuracy"] - confidence)
        assert scaled.figures["ece"] == pytest.approx(ece, abs=1e-5)


def test_perfect_classifier_is_right_and_calibrated_everywhere(published):
    def perfect(images, training=False):
        return 100.0 * _read_class(images)

    rows = _rows(perfect, published, corruptions="brightness")
    means = mean_over_corruptions(rows)
    assert means.pop("cacc") == 1.0
    assert means == pytest.approx(dict.fromkeys(means, 0.0), abs=1e-6)


def test_classifier_that_does_not_look_is_right_by_chance(published):
    # Always class 0, with 12 / 15: a quarter is right, 0.8 is what it believes.
    row = tf.one_hot([0], CLASSES) * SURE
    rows = _rows(lambda images, training=False: tf.repeat(row, len(images), 0), published)
    means = mean_over_corruptions(rows)
    assert means["cacc"] == pytest.approx(0.25)
    for name in ("cece", "cgap", "cgap_size"):
        assert means[name] == pytest.approx(0.55, abs=1e-5)
    # Nothing is known of which are right.
    assert means["caurc"] == pytest.approx(0.75)


def test_random_classifier_has_the_accuracy_of_chance():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 20_000)
    logits = rng.normal(size=(20_000, 10))
    figures = figures_of(labels, logits)
    # Three standard deviations of a binomial mean.
    assert abs(figures["accuracy"] - 0.1) < 3 * np.sqrt(0.1 * 0.9 / 20_000)
    confidence = (np.exp(logits).max(axis=-1) / np.exp(logits).sum(axis=-1)).mean()
    assert figures["ece"] == pytest.approx(confidence - 0.1, abs=0.01)


def test_severities_and_corruptions_that_were_chosen(published):
    rows = _rows(_read_class, published, corruptions="fog", chosen=[2, 5])
    found = [(row.corruption, row.severity, row.figures["accuracy"]) for row in rows]
    assert found == [("fog", 2, pytest.approx(0.8)), ("fog", 5, pytest.approx(0.5))]


# Not in the order of the alphabet.
TREE_CLASSES = ("n03", "n00", "n02", "n01")


@pytest.fixture
def tree(tmp_path):
    """The fog of ``published`` as a tree of image files."""
    for severity in range(1, 6):
        for number, (label, said) in enumerate(zip(LABELS, _wrong(severity), strict=True)):
            folder = tmp_path / "fog" / str(severity) / TREE_CLASSES[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(_images_that_say([said], 3)[0]).save(folder / f"{number:02}.png")
    return tmp_path


def test_tree_of_image_files_has_the_labels_of_the_clean_data(tree):
    splits = _splits(channels=3, names=TREE_CLASSES)
    rows = _rows(_read_class, tree, splits=splits, corruptions="fog")
    accuracies = [row.figures["accuracy"] for row in rows]
    np.testing.assert_allclose(accuracies, [0.9, 0.8, 0.7, 0.6, 0.5])
    described = describe_corrupted(str(tree), splits, corruptions="fog", severities=None)
    assert described == {"name": f"{tree.name} (published tree)", "seed": None}


def test_tree_of_other_classes_is_refused(tree):
    splits = _splits(channels=3, names=("ant", "n00", "n02", "n01"))
    message = "fog/1 must have a folder for each of the 4 classes.*n03 of no class; ant missing"
    with pytest.raises(ValueError, match=message):
        describe_corrupted(str(tree), splits, corruptions="fog", severities=None)
    with pytest.raises(ValueError, match=message):
        _rows(_read_class, tree, splits=splits, corruptions="fog")


@pytest.mark.parametrize("batch_size", [1, 100])
def test_file_of_another_size_in_a_tree_is_named(tree, batch_size):
    odd = tree / "fog" / "2" / "n00" / "01.png"
    assert odd.exists()
    Image.new("RGB", (20, 16)).save(odd)
    splits = _splits(channels=3, names=TREE_CLASSES)
    message = r"n00/01\.png must be 16x16x3, as the clean test images are\. Received: 16x20x3"
    with pytest.raises(ValueError, match=message):
        _rows(_read_class, tree, splits=splits, corruptions="fog", batch_size=batch_size)


def test_array_of_another_size_is_named(published):
    # What a network with global pooling would predict without a word.
    larger = np.zeros([5 * EXAMPLES, 32, 32, 1], np.uint8)
    np.save(published / "brightness.npy", larger)
    message = r"brightness\.npy must be 16x16x1, as the clean test images are\. Received: 32x32x1"
    with pytest.raises(ValueError, match=message):
        _rows(_read_class, published)
    # The first array that is to be measured is looked at before all else is.
    with pytest.raises(ValueError, match=message):
        describe_corrupted(str(published), _splits(), corruptions="brightness", severities=None)


def _describe(directory, splits):
    return describe_corrupted(str(directory), splits, corruptions=None, severities=None)


def test_published_set_must_have_the_labels_of_the_test_images(published):
    name = f"{published.name} (published), 20 images per set"
    assert _describe(published, _splits()) == {"name": name, "seed": None}
    with pytest.raises(ValueError, match="other labels than the test images of toy"):
        _describe(published, _splits(labels=LABELS[::-1]))
    # A part of the test images may be any part.
    assert _describe(published, _splits(labels=np.tile(LABELS[::-1], 2)))["name"] == name


def test_generated_set_must_be_of_the_clean_data(tmp_path):
    images, options = _images_that_say(LABELS), {"corruptions": "contrast", "examples": 8}
    generate_corrupted(images, LABELS, tmp_path, dataset="toy", seed=3, **options)
    name = "toy + corruptions (generated), 8 images per set"
    assert _describe(tmp_path, _splits()) == {"name": name, "seed": 3}
    with pytest.raises(ValueError, match="was made of toy; the clean images are of digits"):
        _describe(tmp_path, dataclasses.replace(_splits(), name="digits"))
    for labels in (np.sort(LABELS), LABELS[:7]):
        with pytest.raises(ValueError, match="other labels than the test images of toy"):
            _describe(tmp_path, _splits(labels=labels))


@pytest.mark.parametrize("layout", ["published", "tree"])
def test_parts_are_read_when_their_turn_comes(layout, request, monkeypatch):
    directory = request.getfixturevalue(layout)
    taken = []

    def network(images, training=False):
        taken.append(len(images))
        return _read_class(images)

    def one_by_one(read):
        def reading(*arguments, **options):
            # The clean images come before the first part.
            for number, part in enumerate(read(*arguments, **options), start=1):
                assert len(taken) == number
                yield part

        return reading

    for name in ("read_corrupted", "read_imagenet_c"):
        monkeypatch.setattr(corrupted_sets, name, one_by_one(getattr(corrupted_sets, name)))
    splits = _splits(channels=3, names=TREE_CLASSES) if layout == "tree" else _splits()
    _rows(network, directory, splits=splits, corruptions="fog", batch_size=20)
    assert taken == [20] * 6


def test_corruption_that_grey_images_skip_is_left_out(tmp_path):
    generate_corrupted(
        _images_that_say(LABELS),
        LABELS,
        tmp_path,
        dataset="grey",
        severities=[1, 2],
        corruptions="contrast,saturate",
    )
    rows = _rows(_read_class, tmp_path, corruptions="saturate,contrast", chosen=[1, 2])
    assert [(row.corruption, row.severity) for row in rows] == [("contrast", 1), ("contrast", 2)]
    with pytest.raises(FileNotFoundError, match="no saturate.npy: grey images have no saturation"):
        _rows(_read_class, tmp_path, corruptions="saturate")


def test_scores_take_one_batch_after_the_other():
    taken = []

    def network(images, training=False):
        taken.append(len(images))
        return _read_class(images)

    def batches():
        for number, severity in enumerate((1, 5)):
            assert len(taken) == number
            yield _images_that_say(_wrong(severity)), LABELS

    plain, scaled = scores_of(HandMade(network), batches(), [1.0, 2.0])
    assert taken == [EXAMPLES, EXAMPLES]
    assert plain.figures()["accuracy"] == pytest.approx(0.7)
    assert plain.figures()["ece"] == pytest.approx(0.1, abs=1e-5)
    assert scaled.figures()["nll"] != plain.figures()["nll"]


def test_means_leave_clean_rows_out():
    def row(severity, **figures):
        return Row("m", "fog", severity, 1.0, dict.fromkeys(MEANS.values(), 0.0) | figures)

    rows = [
        row(0, accuracy=0.0, ece=1.0, gap=1.0),
        row(1, accuracy=0.5, ece=0.25, gap=0.25),
        row(2, accuracy=1.0, ece=0.0, gap=-0.75),
    ]
    expected = {"cacc": 0.75, "cece": 0.125, "cgap": -0.25, "cgap_size": 0.5}
    assert mean_over_corruptions(rows) == dict.fromkeys(MEANS, 0.0) | expected


# --- attacks ----------------------------------------------------------------------------------


def _linear_problem():
    """Two classes and a plane between them; images far from black and white."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=[6, 6, 1]).astype(np.float32)
    images = rng.integers(100, 156, (60, 6, 6, 1)).astype(np.uint8)
    scores = (images / 255.0 * weights).sum(axis=(1, 2, 3))
    offset = -np.median(scores).astype(np.float32)
    labels = (scores + offset > 0).astype(np.int32)
    # A tenth is wrong from the start.
    labels[:6] = 1 - labels[:6]

    def network(images, training=False):
        score = tf.reduce_sum(images * weights, axis=[1, 2, 3]) + offset
        return tf.stack([-score, score], axis=-1)

    distance = (scores + offset) * (2 * labels - 1) / np.abs(weights).sum()
    return network, images, labels, distance


@pytest.mark.parametrize("loss", ATTACK_LOSSES)
@pytest.mark.parametrize("batch_size", [7, 60])
def test_robust_accuracy_of_a_plane_is_the_share_beyond_epsilon(loss, batch_size):
    network, images, labels, distance = _linear_problem()
    epsilons = [float(np.quantile(distance, q)) for q in (0.325, 0.575, 0.825)]
    robust = robust_accuracy(
        HandMade(network),
        images,
        labels,
        epsilons=epsilons,
        num_steps=10,
        num_restarts=1,
        loss=loss,
        seed=0,
        batch_size=batch_size,
    )
    # The best an ℓ∞ attack can do to a plane is to move every pixel by ε along its sign.
    assert robust == {e: pytest.approx(np.mean(distance > e)) for e in (0.0, *epsilons)}
    assert 0.1 < robust[epsilons[2]] < robust[epsilons[0]] < 0.9


def test_robust_accuracy_is_that_of_the_attack_itself(digits):
    images = digits[0][:30]
    rng = np.random.default_rng(1)
    first, second = (rng.normal(size=size).astype(np.float32) for size in ([64, 12], [12, 10]))

    def network(images, training=False):
        return tf.nn.relu(tf.reshape(images, [-1, 64]) @ first) @ second

    labels = network(images / np.float32(255.0)).numpy().argmax(axis=-1)
    options = {"num_steps": 3, "num_restarts": 2}
    robust = robust_accuracy(
        HandMade(network),
        images,
        labels,
        epsilons=[0.02, 0.1],
        loss="margin",
        seed=5,
        batch_size=20,
        **options,
    )
    assert robust.pop(0.0) == 1.0
    for epsilon, accuracy in robust.items():
        right = 0
        for rows in (slice(0, 20), slice(20, 30)):
            moved = projected_gradient_descent(
                network,
                images[rows],
                labels[rows],
                epsilon=epsilon,
                step_size=epsilon / 4,
                seed=[5, rows.start],
                loss=ATTACK_LOSSES["margin"],
                **options,
            )
            right += np.sum(network(moved).numpy().argmax(axis=-1) == labels[rows])
        assert accuracy == right / 30
    assert robust[0.1] < robust[0.02] < 1.0


def test_attack_on_weights_that_are_not_finite_says_so_in_one_line():
    network = linear_network((4, 4, 1), 3)
    network.layers[-1].kernel.assign(np.full([16, 3], np.nan))
    with pytest.raises(ValueError, match="hand-made: .*The gradient .*dense.*kernel") as raised:
        robust_accuracy(
            HandMade(network),
            np.full([4, 4, 4, 1], 128, np.uint8),
            np.zeros(4, np.int32),
            epsilons=[0.1],
            num_steps=1,
            num_restarts=1,
            loss="crossentropy",
            seed=0,
            batch_size=4,
        )
    assert len(str(raised.value).splitlines()) == 1
