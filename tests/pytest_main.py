"""Runs the test file that it is given: the main of each ``py_test`` in BUILD."""

import os
import sys

import pytest


def main(test_file: str) -> int:
    """Runs the tests and returns pytest's exit code, which is not 0 if there were none."""
    # Python puts the folder of this file first, and there tests/data would hide data.
    folder = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.realpath(path) != folder]
    options = ["-p", "no:cacheprovider"]
    if "TEST_TMPDIR" in os.environ:
        # The one folder that Bazel lets a test write to; it sets no HOME.
        os.environ["HOME"] = os.environ["TMPDIR"] = os.environ["TEST_TMPDIR"]
    if "XML_OUTPUT_FILE" in os.environ:
        options.append("--junitxml=" + os.environ["XML_OUTPUT_FILE"])
    if "TESTBRIDGE_TEST_ONLY" in os.environ:  # --test_filter
        options.append("-k=" + os.environ["TESTBRIDGE_TEST_ONLY"])
    return pytest.main([*options, test_file])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
