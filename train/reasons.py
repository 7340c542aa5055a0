"""What went wrong, in one line."""

import tensorflow as tf

LONGEST = 300


def reason_of(error: Exception) -> str:
    """The one line of an error that says what happened.

    Args:
        error: Any error; the text of one of TensorFlow's runtime is about the graph for the most
            part.

    Returns:
        The first line, 300 characters at most, or the error's name if it says nothing. Of the
        runtime: what an assertion said, or else the last line that names no node of the graph.

    Example:
        >>> reason_of(tf.errors.OpError(None, None, "At node:\\nno space left\\n[[{{node a}}", 8))
        'no space left'
        >>> reason_of(ValueError("a batch of 0\\nTraceback")), reason_of(KeyError())
        ('a batch of 0', 'KeyError')
    """
    if not isinstance(error, tf.errors.OpError):
        # Some show what they read.
        return (str(error).strip() or type(error).__name__).splitlines()[0][:LONGEST]
    lines = [line.strip() for line in str(error.message).splitlines()]
    lines = [line for line in lines if line and "{{node" not in line]
    asserted = [line for line in lines if "assertion failed" in line]
    return (asserted or lines or [type(error).__name__])[-1]
