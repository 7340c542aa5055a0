"""A step of the published recipes: network, moments, crops and data find each other."""

import numpy as np
import pytest
from tensorflow import keras

from keras_autolabel.augment import chain
from tests.data.fake_tfds import write_cifar, write_imagenet
from tests.train.conftest import RECIPES, from_flags
from train import builders
from train.image_network import CIFAR10_MEAN, CIFAR10_STD, IMAGENET_MEAN, IMAGENET_STD

FILES = {path.stem: path for path in RECIPES}
SMALLER = ("--depth=10", "--width=1")


@pytest.mark.parametrize(
    ("name", "write", "arguments", "moments"),
    # The recipe of CIFAR-100 differs from that of CIFAR-10 in the data alone.
    [
        (
            "cifar10_augmix_autolabel",
            lambda folder: write_cifar("cifar10", folder, train=40, test=10),
            ["--holdout_examples=20", *SMALLER],
            (CIFAR10_MEAN, CIFAR10_STD),
        ),
        # The hold-out of 1,000 classes would be 150 MB at 224 pixels.
        (
            "imagenet_augmix_autolabel",
            lambda folder: write_imagenet(folder, train=1200, test=10),
            ["--holdout_examples=1000", "--image_size=32"],
            (IMAGENET_MEAN, IMAGENET_STD),
        ),
    ],
)
def test_one_step(name, write, arguments, moments, tmp_path, monkeypatch):
    # For one batch the compiler would take longer than all else.
    monkeypatch.setattr(chain, "SMALLEST_COMPILED", np.inf)
    write(str(tmp_path))
    flags = [f"--flagfile={FILES[name]}", "--batch_size=2", f"--data_dir={tmp_path}"]
    settings, _ = from_flags(*flags, *arguments)
    splits = builders.load_data(settings)
    assert splits.train.crop_and_flip
    model = builders.build_model(settings, splits)
    assert model.network.name.startswith(settings.network)
    (layer,) = [x for x in model.network.layers if isinstance(x, keras.layers.Normalization)]
    np.testing.assert_allclose(np.ravel(layer.mean), moments[0], rtol=1e-6)
    np.testing.assert_allclose(np.ravel(layer.variance), np.square(moments[1]), rtol=1e-6)
    # To trace a graph takes longer than a step; that of number 0 has a learning rate of 0.
    model.run_eagerly = True
    model.optimizer.iterations.assign(1)
    before = model.network.layers[-1].get_weights()[0]
    batches = splits.train.training_batches(batch_size=2, seed=0, epochs=1)
    history = model.fit(batches.take(1), epochs=1, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert np.any(model.network.layers[-1].get_weights()[0] != before)
