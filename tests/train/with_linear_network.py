"""Runs a command with a linear network in place of a residual one, of which little is traced.

python -m tests.train.with_linear_network train.fit <arguments of train.fit>
"""

import runpy
import sys

from tests.conftest import linear_network
from train import builders


def build_linear_networks() -> None:
    """From here on all networks are linear."""
    builders.build_network = lambda settings, train, num_classes: linear_network(
        train.image_shape, num_classes, scale=0.05
    )


if __name__ == "__main__":
    build_linear_networks()
    module, *_ = sys.argv = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
