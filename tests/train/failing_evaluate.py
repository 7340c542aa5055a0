"""Runs ``train.evaluate``, in which TensorFlow raises an error."""

import tensorflow as tf
from absl import app

from train import evaluate


def _fail(*_, **__):
    message = "Graph execution error:\nassertion failed: [no space]\n\t [[{{node a}}]]"
    raise tf.errors.ResourceExhaustedError(None, None, message)


evaluate.evaluate = _fail
app.run(evaluate.main)
