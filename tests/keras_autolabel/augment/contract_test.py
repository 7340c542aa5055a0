"""What every augmentation promises, ours and a user's own."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import (
    PGD,
    Augmentation,
    AugMix,
    AutoLabel,
    AutoLabelModel,
    CutMix,
    HalfAdversarial,
    Mixup,
    RandAugment,
    SoftCrop,
)
from keras_autolabel.batch import to_float
from keras_autolabel.testing import check_augmentation
from tests.conftest import linear_network
from tests.keras_autolabel.augment.conftest import assert_independent, assert_uniform, cells_of

SEED = tf.constant([2, 3])


@keras.utils.register_keras_serializable(package="tests")
class Noise(Augmentation):
    """A user's own, one short method: noise of σ = strength·distance."""

    def __init__(self, *, strength=0.5, **kwargs):
        super().__init__(**kwargs)
        self.strength = strength

    def apply(self, images, labels, drawn, network=None):
        sigma = tf.reshape(self.strength * drawn.distance, [-1, 1, 1, 1])
        noise = tf.random.stateless_normal(tf.shape(images), drawn.seed)
        return self.moved(to_float(images) + sigma * noise, labels, drawn)


ALL = {
    "AugMix": AugMix(num_buckets=4, max_depth=2, severity=9.0, operations=("rotate", "solarize")),
    "RandAugment": RandAugment(
        num_buckets=3, num_operations=3, max_magnitude=4.0, operations=("rotate", "color")
    ),
    "Mixup": Mixup(num_buckets=5, beta=0.4),
    "CutMix": CutMix(num_buckets=5, beta=0.4),
    "SoftCrop": SoftCrop(num_buckets=5, sigma=0.5),
    "PGD": PGD(epsilon=0.2, num_buckets=4, num_steps=2, random_start=False),
    "HalfAdversarial": HalfAdversarial(
        PGD(epsilon=0.2, num_buckets=3, num_steps=2, relative_step_size=0.3)
    ),
    "Noise": Noise(num_buckets=6, strength=0.3),
}
every_augmentation = pytest.mark.parametrize("augmentation", ALL.values(), ids=ALL.keys())
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 5, 1), dtype=np.uint8)
LABELS = np.arange(12) % 3
NETWORK = linear_network((4, 5, 1), 3)


@pytest.mark.parametrize(
    ("augmentation", "config"),
    [
        (AugMix(), {"num_buckets": 10, "max_depth": 3, "severity": 3.0}),
        (RandAugment(), {"num_buckets": 10, "num_operations": 2, "max_magnitude": 10.0}),
        (Mixup(), {"num_buckets": 10, "beta": 1.0}),
        (CutMix(), {"num_buckets": 10, "beta": 1.0}),
        (SoftCrop(), {"num_buckets": 10, "sigma": 0.3}),
        (
            PGD(epsilon=0.1),
            {"num_buckets": 10, "num_steps": 10, "relative_step_size": 0.25, "random_start": True},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_asked_for_is_as_documented(augmentation, config):
    assert config.items() <= augmentation.get_config().items()


@every_augmentation
def test_the_contract_holds(augmentation):
    check_augmentation(augmentation, image_shape=(9, 7, 3), num_classes=21)


def test_a_grey_level_of_rounding_in_a_graph_breaks_no_promise():
    # Of the images of this seed a graph rounds two pixels otherwise.
    check_augmentation(RandAugment(num_buckets=4, operations=("shear_x",)), seed=3)


@every_augmentation
def test_sizes_may_be_unknown_where_there_is_no_network(augmentation):
    if augmentation.needs_network:
        return
    signature = [tf.TensorSpec([None, None, None, 1], tf.uint8), tf.TensorSpec([None], tf.int32)]
    graph = tf.function(lambda x, y: augmentation(x, y, seed=SEED), input_signature=signature)
    eager = augmentation(IMAGES, LABELS, seed=SEED)
    for one, other in zip(graph(IMAGES, LABELS), eager, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    for augment in (graph, lambda x, y: augmentation(x, y, seed=SEED)):
        # A single image has no other one to be mixed with.
        for size in (0, 2 if "mix" in augmentation.offers else 1):
            assert augment(IMAGES[:size], LABELS[:size]).images.shape == (size, 4, 5, 1)


@every_augmentation
def test_xla_compiles_what_says_so_and_nothing_else(augmentation):
    graph = tf.function(
        lambda images: augmentation(images, LABELS, seed=SEED, network=NETWORK), jit_compile=True
    )
    if augmentation.jit_compiles:
        assert graph(IMAGES).images.shape == IMAGES.shape
    else:
        with pytest.raises(tf.errors.InvalidArgumentError, match="unsupported operations"):
            graph(IMAGES)


# --- what is drawn --------------------------------------------------------------------------------


def _columns(drawn) -> dict[str, np.ndarray]:
    """Numbers of an example each, as the number of a cell: all that is drawn, and its place."""
    size = len(drawn.distance)
    fields = {"place": range(size), **drawn._asdict()}
    del fields["bucket"]
    fields.pop("first_row", None)
    if "seed" in fields:
        fields["seed"] = tf.random.stateless_uniform([size], drawn.seed)
    if "partner" in fields:
        fields["distance of the partner"] = tf.gather(drawn.distance, drawn.partner)
    columns = {}
    for name, field in fields.items():
        values = np.reshape(np.asarray(field, np.float64), [size, -1])
        # Rows of two numbers of the seed of a single one would be the same in this order.
        in_a_row = [] if values.shape[1] == 1 else [values.ravel()[:size]]
        for i, column in enumerate([*values.T, *in_a_row]):
            ranks = np.unique(column, return_inverse=True)[1]
            columns[f"{name} {i}"] = 20 * ranks // (ranks.max() + 1)
    return columns


# Two examples of the seed above, in training and in bucket 1: recorded, the same on all stacks.
# Who changes one of these numbers changes every training that is repeated or goes on.
RECORDED = {
    "AugMix": (
        [0.5592, 0.4452, 6, 1, 2, 1, 0, 1, 1, 0, -7.3047, 2.1825, 4.4064, 1.8701],
        [0.3602, 0.3887, 1, 1, 1, 1, 0, 1, 1, 0, -7.3047, 2.1825, 4.4064, 1.8701],
    ),
    "RandAugment": (
        [0.0974, 0.2589, 0, 0, 1, 1, 1, 1, 1, 1, 1, -1, 1, -1, -1, -1],
        [0.3658, 0.4196, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, 1, -1, -1, -1],
    ),
    "Mixup": (
        [0.0148, 0.014, 0, 0, 1, 0],
        [0.2882, 0.311, 1, 1, 1, 0],
    ),
    "CutMix": (
        [0.0148, 0.014, 0, 0, 1, 0, 1, 1, 0.9379, 0.443, 0.1461, 0.3258],
        [0.2882, 0.311, 1, 1, 1, 0, 1, 1, 0.9379, 0.443, 0.1461, 0.3258],
    ),
    "SoftCrop": (
        [0.7215, 0.3037, 3, 1, -0.5984, -0.3066, 0.1909, -0.1395],
        [0.2195, 0.2518, 1, 1, 0.1035, -0.1294, 0.1486, -0.1211],
    ),
    "PGD": (
        [0.0974, 0.2589, 0, 1, 396081536, -469225166, 0],
        [0.2743, 0.3147, 1, 1, 396081536, -469225166, 0],
    ),
    "HalfAdversarial": (
        [0, 1, 0, 2, 2, 3, 0],
        [0.3658, 0.4196, 1, 1, 396081536, -469225166, 0],
    ),
    "Noise": (
        [0.0974, 0.2589, 0, 1, 396081536, -469225166],
        [0.1829, 0.2098, 1, 1, 396081536, -469225166],
    ),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("bucket", "place"), [(None, 0), (1, 1)])
def test_a_seed_draws_what_it_always_drew(name, bucket, place):
    labels = tf.zeros([2], tf.int32)
    draws = [ALL[name].draw(labels, SEED, bucket)]
    # A single device has all there is.
    draws += [ALL[name].draw_own(labels, SEED)] if bucket is None else []
    for drawn in draws:
        numbers = np.concatenate([np.ravel(np.asarray(field, np.float64)) for field in drawn])
        np.testing.assert_allclose(numbers, RECORDED[name][place], atol=1e-4)


# The distance of SoftCrop follows from its shifts.
@pytest.mark.parametrize("name", ["AugMix", "RandAugment", "Mixup", "CutMix", "PGD", "Noise"])
@pytest.mark.parametrize("bucket", [None, 1])
def test_everything_drawn_is_independent(name, bucket):
    augmentation, labels = ALL[name], tf.zeros([40_000], tf.int32)
    columns = _columns(augmentation.draw(labels, SEED, bucket))
    neighbour = _columns(augmentation.draw(labels, SEED + [0, 1], bucket))
    assert_independent(**columns, neighbour=neighbour["distance 0"])


@every_augmentation
@pytest.mark.parametrize("bucket", [None, 1])
def test_no_seed_is_drawn_from_twice(augmentation, bucket, monkeypatch):
    """Numbers of one seed for two things may look independent where one is a remainder."""
    used = []

    def spied(draw):
        def call(shape, seed, *arguments, **options):
            used.append(tuple(np.array(seed)))
            return draw(shape, seed, *arguments, **options)

        return call

    for module, name in (
        (tf.random, "stateless_uniform"),
        (tf.random, "stateless_gamma"),
        (tf.random.experimental, "stateless_shuffle"),
    ):
        monkeypatch.setattr(module, name, spied(getattr(module, name)))
    drawn = augmentation.draw(tf.constant(LABELS), SEED, bucket)
    used += [tuple(drawn.seed.numpy())] if hasattr(drawn, "seed") else []
    assert used and len(set(used)) == len(used)


@pytest.mark.parametrize("name", ["RandAugment", "PGD"])
def test_a_replica_takes_its_rows_of_one_draw(name, monkeypatch):
    labels = tf.constant(LABELS[:4])
    whole = ALL[name].draw(tf.tile(labels, [2]), SEED)._asdict()
    for module in ("distribution", "augment.augmentation"):
        monkeypatch.setattr(f"keras_autolabel.{module}.replicas", lambda: (1, 2))
    own = ALL[name].draw_own(labels, SEED)._asdict()
    # A start is drawn with the seed of all, from the first of the own rows on.
    assert (own.pop("first_row", 4), whole.pop("first_row", 0)) == (4, 0)
    np.testing.assert_array_equal(own.pop("seed", SEED), whole.pop("seed", SEED))
    for field, values in own.items():
        np.testing.assert_array_equal(values, whole[field][4:])


@every_augmentation
@pytest.mark.parametrize("num_buckets", [1, 4])
def test_buckets_that_are_asked_for_are_filled_uniformly(augmentation, num_buckets):
    config = {**augmentation.get_config(), "num_buckets": num_buckets}
    if "attack" not in config:
        augmentation = type(augmentation)(**config)
    count, size = int(np.prod(augmentation.bucket_shape)), augmentation.num_buckets
    bucket = tf.range(4_000 * count) % count
    drawn = augmentation.draw(tf.zeros_like(bucket), SEED, bucket)
    np.testing.assert_array_equal(drawn.bucket, bucket)
    position = drawn.distance.numpy().astype(np.float64) * size - bucket.numpy() % size
    assert_uniform(cells_of(position, 0, 1), 20)


@pytest.mark.parametrize(
    "augmentation",
    [AugMix(num_buckets=7, max_depth=1), Mixup(num_buckets=7), CutMix(num_buckets=7)]
    + [RandAugment(num_buckets=7), PGD(epsilon=0.1, num_buckets=7), Noise(num_buckets=7)],
)
def test_distances_of_training_are_uniform_and_in_their_buckets(augmentation):
    drawn = augmentation.draw(tf.zeros([100_000], tf.int32), SEED)
    assert_uniform(cells_of(drawn.distance, 0, 1), 20)
    # Bucket n holds (n/N, (n+1)/N]; single precision decides on the edges alone.
    position = drawn.distance.numpy().astype(np.float64) * 7
    away = np.abs(position % 1 - 0.5) < 0.4999
    np.testing.assert_array_equal(drawn.bucket[away], position[away].astype(int))


# --- in models and data sets ----------------------------------------------------------------------


@every_augmentation
@pytest.mark.usefixtures("eagerly")
def test_a_model_with_it_learns_and_is_saved_and_loaded(augmentation, tmp_path):
    model = AutoLabelModel(linear_network((4, 5, 1), 3), augmentation, num_classes=3, seed=5)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    callback = AutoLabel((IMAGES, LABELS), step_size=0.5)
    model.fit(IMAGES, LABELS, batch_size=6, verbose=0, shuffle=False, callbacks=[callback])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    again.run_eagerly = True
    assert int(again.draws) == 2 and again.label_policy.bucket_shape == augmentation.bucket_shape
    # The next step draws, labels and trains the same.
    for one in (model, again):
        one.train_on_batch(IMAGES, LABELS)
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_data_set_keeps_labels_and_weights_and_draws_every_batch_of_every_epoch_anew():
    weights = np.linspace(0.5, 2.0, 12)
    data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS, weights)).batch(5)

    def distances(seed) -> list[float]:
        augmented = data.apply(Noise().dataset_transform(seed=seed))
        assert augmented.cardinality() == 3
        epochs = [list(augmented) for _ in range(2)]
        for epoch in epochs:
            np.testing.assert_array_equal(np.concatenate([x[1] for x in epoch]), LABELS)
            np.testing.assert_array_equal(np.concatenate([x[2] for x in epoch]), weights)
        return [float(x) for epoch in epochs for batch, *_ in epoch for x in batch.distance]

    first = distances(1)
    assert len(set(first)) == len(first) == 24
    assert distances(1) == first and not set(distances(2)) & set(first)


# --- what is refused ------------------------------------------------------------------------------

NO_WHOLE_NUMBERS = (0, -1, 2.5, True, "3", None)
NO_NUMBERS = (float("nan"), float("inf"), -0.1, "0.5", None, [0.5])
ARGUMENTS = [
    *((cls, "num_buckets", NO_WHOLE_NUMBERS) for cls in (AugMix, RandAugment, Mixup, CutMix)),
    *((cls, "num_buckets", NO_WHOLE_NUMBERS) for cls in (SoftCrop, PGD, Noise)),
    (AugMix, "max_depth", NO_WHOLE_NUMBERS),
    (AugMix, "severity", (*NO_NUMBERS, 0.0, 0.09, 10.1)),
    (AugMix, "operations", ((), ("rotate", "colour"), ("color",), None)),
    (RandAugment, "num_operations", NO_WHOLE_NUMBERS),
    (RandAugment, "max_magnitude", (*NO_NUMBERS, 0.0, 10.1)),
    (RandAugment, "operations", ((), ("rotate", "colour"), None)),
    *((cls, "beta", (*NO_NUMBERS, 0.0, 9e-7, 1e6 + 0.5)) for cls in (Mixup, CutMix)),
    (SoftCrop, "sigma", (*NO_NUMBERS, 0.0)),
    (PGD, "epsilon", (*NO_NUMBERS, 0, 0.0, 8, 1.001)),
    (PGD, "num_steps", NO_WHOLE_NUMBERS),
    (PGD, "relative_step_size", (*NO_NUMBERS, 0.0)),
]


@pytest.mark.parametrize(
    ("cls", "name", "values"),
    ARGUMENTS,
    ids=[f"{cls.__name__}-{name}" for cls, name, _ in ARGUMENTS],
)
def test_arguments_are_refused_by_name_and_value(cls, name, values):
    given = {"epsilon": 0.1} if cls is PGD else {}
    for value in values:
        with pytest.raises(ValueError) as raised:
            cls(**{**given, name: value})
        assert f"{name}={value!r}" in str(raised.value)


AUGMIX = ("autocontrast", "equalize", "posterize", "rotate", "solarize")
GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y")
ENHANCE = ("color", "contrast", "brightness", "sharpness")


LEFT_OUT = {
    AugMix: {"max_depth": 3, "severity": 3.0, "operations": AUGMIX + GEOMETRIC},
    RandAugment: {
        **{"num_operations": 2, "max_magnitude": 10.0},
        "operations": AUGMIX + ENHANCE + GEOMETRIC,
    },
    Mixup: {"beta": 1.0},
    CutMix: {"beta": 1.0},
    SoftCrop: {"sigma": 0.3},
    PGD: {"num_steps": 10, "relative_step_size": 0.25, "random_start": True},
    Noise: {"strength": 0.5},
}


@pytest.mark.parametrize("cls", LEFT_OUT)
def test_arguments_left_out(cls):
    given = {"epsilon": 0.1} if cls is PGD else {}
    assert cls(**given).get_config() == {"num_buckets": 10, **given, **LEFT_OUT[cls]}


def test_the_last_arguments_in_range_are_taken():
    AugMix(severity=0.1, max_depth=1), AugMix(severity=10.0), Mixup(beta=1e-6), Mixup(beta=1e6)
    RandAugment(max_magnitude=10.0, num_operations=np.int64(1)), RandAugment(max_magnitude=1e-3)
    PGD(epsilon=1.0, num_steps=1)
    assert AugMix(operations=["rotate"]).operations == ("rotate",)


def test_a_config_has_the_constructor_s_arguments_alone():
    class Fixed(Augmentation):
        def __init__(self):
            super().__init__(num_buckets=3)

    assert Fixed().get_config() == {} and Fixed.from_config({}).num_buckets == 3


@every_augmentation
def test_batches_that_cannot_be_right_are_refused(augmentation):
    for error, images, labels, value in (
        (ValueError, IMAGES[..., 0], LABELS, r"\(12, 4, 5\)"),
        (ValueError, IMAGES.astype(np.int64), LABELS, "int64"),
        (ValueError, IMAGES, ["a"] * 12, "string"),
        (tf.errors.InvalidArgumentError, IMAGES / np.float32(100), LABELS, "divide by 255"),
        (tf.errors.InvalidArgumentError, IMAGES, LABELS + 0.5, "whole numbers"),
        (tf.errors.InvalidArgumentError, IMAGES, np.full([12, 2], 0.5), "one-hot"),
    ):
        with pytest.raises(error, match=value):
            augmentation(images, labels, seed=SEED, network=NETWORK)


@pytest.mark.parametrize("name", ["Mixup", "CutMix"])
def test_a_batch_that_is_too_small_is_refused_in_one_line_in_graphs_too(name):
    with pytest.raises(ValueError, match="at least 2 .* Received: 1"):
        ALL[name](IMAGES[:1], LABELS[:1], seed=SEED)
    model = AutoLabelModel(linear_network((4, 5, 1), 3), ALL[name], num_classes=3)
    model.compile("sgd")
    data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(11)
    with pytest.raises(ValueError, match="at least 2 .* Received: 1$"):
        model.fit(data, verbose=0)


@pytest.mark.parametrize("name", ["PGD", "HalfAdversarial"])
def test_what_needs_the_network_says_so(name):
    with pytest.raises(ValueError, match=f"{name} needs the network"):
        ALL[name](IMAGES, LABELS, seed=SEED)
    with pytest.raises(ValueError, match=f"{name}.*in a dataset"):
        ALL[name].dataset_transform(seed=1)


@pytest.mark.parametrize("name", ALL)
def test_what_xla_cannot_compile_is_refused_by_name(name):
    model = AutoLabelModel(NETWORK, ALL[name], num_classes=3)
    if name == "Noise":
        model.compile("sgd", jit_compile=True)
        return
    with pytest.raises(ValueError, match=f"no kernels for {name}: leave out jit_compile"):
        model.compile("sgd", jit_compile=True)


def test_an_augmentation_without_apply_says_what_is_missing():
    class Empty(Augmentation):
        pass

    with pytest.raises(TypeError, match="Empty must have a method apply"):
        Empty()(IMAGES, LABELS, seed=SEED)


# --- the contract bites ---------------------------------------------------------------------------


@keras.utils.register_keras_serializable(package="tests")
class Broken(Noise):
    """Noise with one promise broken, told by words of the message that must name it."""

    def __init__(self, promise="", **kwargs):
        super().__init__(**kwargs)
        self.promise = promise
        self.calls = 0

    def draw(self, labels, seed, bucket=None):
        if self.promise == "the same seed":
            self.calls += 1
            seed = seed + self.calls
        if self.promise == "another seed":
            seed = tf.constant([0, 0])
        if self.promise == "was asked for":
            bucket = None
        drawn = super().draw(labels, seed, bucket)
        changes = {
            "in their buckets": {"distance": 1.0 - drawn.distance},
            "bucket must lie": {"bucket": drawn.bucket + self.num_buckets},
        }
        return drawn._replace(**changes.get(self.promise, {}))

    def apply(self, images, labels, drawn, network=None):
        if self.promise == "uint8 and float":
            # Without division: white, once it is cut to [0, 1].
            images = tf.cast(images, tf.float32)
        batch = super().apply(images, labels, drawn, network)
        traced, known = not tf.executing_eagerly(), labels.shape.is_fully_defined()
        inverted, turned = 1.0 - batch.images, tf.reverse(labels, [0])
        changes = {
            "a graph must give": {"images": inverted if traced else batch.images},
            "a dataset must give": {"images": inverted if traced and known else batch.images},
            "images must lie": {"images": batch.images + 0.5},
            "images must have shape": {"images": batch.images[:, 1:]},
            "labels must stay": {"labels": turned, "partners": turned},
            "partners must be": {"partners": batch.partners + 1},
            "mix must lie": {"mix": batch.mix + 0.6},
            "distance must be": {"distance": tf.cast(batch.distance, tf.float64)},
        }
        return batch._replace(**changes.get(self.promise, {}))

    def dataset_transform(self, *, seed):
        if self.promise == "drawn anew":
            return lambda data: data.map(lambda x, y: (self(x, y, seed=SEED), y))
        if self.promise == "repeat itself":
            self.calls += 1
        transform = super().dataset_transform(seed=seed + self.calls)
        if self.promise == "keep the labels":
            return lambda data: transform(data).map(lambda batch, y: (batch, y + 1))
        return transform

    def get_config(self):
        config = super().get_config()
        return {**config, "strength": 0.1} if self.promise == "the config" else config


@pytest.mark.parametrize(
    "promise",
    [
        *("the same seed", "another seed", "was asked for", "in their buckets", "bucket must lie"),
        *("uint8 and float", "a graph must give", "a dataset must give", "images must lie"),
        *("images must have shape", "labels must stay", "partners must be", "mix must lie"),
        *("distance must be", "drawn anew", "repeat itself", "keep the labels", "the config"),
    ],
)
def test_a_broken_promise_is_named(promise):
    with pytest.raises(AssertionError, match=promise):
        check_augmentation(Broken(promise, num_buckets=4), image_shape=(4, 4, 1))


def test_only_what_is_asked_for_may_break_a_promise_too():
    class OnlyInBuckets(Noise):
        def __call__(self, images, labels, *, seed, bucket=None, network=None):
            batch = super().__call__(images, labels, seed=seed, bucket=bucket)
            return batch if bucket is None else batch._replace(images=batch.images + 0.5)

    with pytest.raises(AssertionError, match="images must lie"):
        check_augmentation(OnlyInBuckets(), image_shape=(4, 4, 1))
