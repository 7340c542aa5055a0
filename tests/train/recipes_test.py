"""The published recipes, one step each of those that differ in network and data."""

import sys

import numpy as np
import pytest
from tensorflow import keras

from tests.data.fake_tfds import write_cifar, write_imagenet
from tests.train.conftest import RECIPES, from_flags
from train import builders
from train.image_network import CIFAR10_MEAN, CIFAR10_STD, IMAGENET_MEAN, IMAGENET_STD

FILES = {path.stem: path for path in RECIPES}


@pytest.mark.parametrize(
    ("name", "arguments", "millions", "moments"),
    [
        ("cifar10_augmix_autolabel", ["--holdout_examples=20"], 36.5, (CIFAR10_MEAN, CIFAR10_STD)),
        (
            "cifar100_augmix_autolabel",
            ["--holdout_examples=100", "--depth=10", "--width=1"],
            0.1,
            (CIFAR10_MEAN, CIFAR10_STD),
        ),
        # The hold-out of 1,000 classes would be 150 MB at 224 pixels.
        (
            "imagenet_augmix_autolabel",
            ["--holdout_examples=1000", "--image_size=64"],
            25.6,
            (IMAGENET_MEAN, IMAGENET_STD),
        ),
    ],
)
def test_one_step(name, arguments, millions, moments, tmp_path):
    write = {
        "cifar10": lambda: write_cifar("cifar10", str(tmp_path), train=60, test=10),
        "cifar100": lambda: write_cifar("cifar100", str(tmp_path), train=400, test=100),
        "imagenet2012": lambda: write_imagenet(str(tmp_path), train=2000, test=10),
    }
    flags = [f"--flagfile={FILES[name]}", "--batch_size=2", f"--data_dir={tmp_path}"]
    settings, _ = from_flags(*flags, *arguments)
    write[settings.dataset]()
    splits = builders.load_data(settings)
    assert splits.train.crop_and_flip
    model = builders.build_model(settings, splits)
    assert round(model.network.count_params() / 1e6, 1) == millions
    (layer,) = [x for x in model.network.layers if isinstance(x, keras.layers.Normalization)]
    np.testing.assert_allclose(np.ravel(layer.mean), moments[0], rtol=1e-6)
    np.testing.assert_allclose(np.ravel(layer.variance), np.square(moments[1]), rtol=1e-6)
    # To trace a graph takes longer than two steps.
    model.run_eagerly = True
    before = [np.array(w) for w in model.network.trainable_weights[:3]]
    batches = splits.train.training_batches(batch_size=2, seed=0, epochs=1)
    history = model.fit(batches.take(2), epochs=1, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    after = [np.array(w) for w in model.network.trainable_weights[:3]]
    assert any(np.any(one != other) for one, other in zip(before, after, strict=True))


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
