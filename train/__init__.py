"""Training and evaluation binaries, driven by absl flags: ``python -m train.NAME --help``."""

import os

# TensorFlow reads this when it is imported: its log of start-up details hides what a run says.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
