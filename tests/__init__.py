"""The tests."""

import gc

# TensorFlow's modules and graphs are millions of objects that stay; to look for garbage among them
# as often as Python does by itself takes a tenth of the time.
gc.set_threshold(100_000, 20, 100)
