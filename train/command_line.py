"""What the binaries share: flags that are settings, and errors that end in one line."""

import contextlib
import os
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence

import tensorflow as tf
from absl import flags, logging

from train.reasons import reason_of
from train.run_folder import Terminated
from train.settings import FIELDS, Settings

# --help lists flags below the binary that has them defined, not below this module.
flags.disclaim_key_flags()

DEFINE = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def define_flags(
    names: Iterable[str], *, of_the_run: bool = False, defaults: Mapping[str, object] | None = None
) -> None:
    """Defines a flag for each of some settings, as ``Settings`` declares it.

    Args:
        names: Names of settings.
        of_the_run: Whether the default is what the run that is looked at was trained with.
        defaults: Name of a setting -> its default, where that is not the one of ``Settings``.
    """
    defaults = defaults or {}
    for name in names:
        metadata = FIELDS[name].metadata
        help = metadata["help"]
        if metadata["choice"]:
            help = f"--{metadata['choice']}={' or '.join(metadata['names'])}: {help}"
        if of_the_run:
            help += " By default as for the run."
        kind, *_ = typing.get_args(FIELDS[name].type) or (FIELDS[name].type,)
        define = flags.DEFINE_enum if "enum_values" in metadata["options"] else DEFINE[kind]
        default = None if of_the_run else defaults.get(name, FIELDS[name].default)
        define(name, default, help=help, **metadata["options"])


def define_severities(default: list[str] | None, help: str) -> None:
    """Defines ``--severities`` of corruptions."""
    flags.DEFINE_list("severities", default, help)
    flags.register_validator(
        "severities",
        lambda texts: texts is None or bool(texts) and set(texts) <= set("12345"),
        "must be whole numbers from 1 to 5, separated by commas.",
    )


def define_epsilons(name: str, default: list[str], help: str) -> None:
    """Defines a flag for the ε of attacks."""
    flags.DEFINE_list(name, default, help)
    flags.register_validator(
        name,
        _are_epsilons,
        "must be numbers above 0 and at most 1, separated by commas; 8 grey levels are 0.0314.",
    )


def _are_epsilons(texts: list[str]) -> bool:
    try:
        return all(0.0 < float(text) <= 1.0 for text in texts)
    except ValueError:
        return False


def settings_from_flags() -> tuple[Settings, list[str]]:
    """The settings that the flags give, and the names of those that were given."""
    values = {name: flags.FLAGS[name].value for name in FIELDS}
    return Settings(**values), [name for name in FIELDS if flags.FLAGS[name].present]


@contextlib.contextmanager
def one_line_errors(binary: str, argv: Sequence[str]) -> Iterator[None]:
    """Ends the program with one line where what is done inside cannot be done.

    The name of the binary begins it. Words that absl left of the command line are refused, too.
    """
    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        sys.exit(f"{binary}: Unknown arguments: {' '.join(argv[1:])}")
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"{binary}: {error}")
    except Terminated as error:
        print(f"{binary}: {error}", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)
    except tf.errors.OpError as error:
        sys.exit(f"{binary}: {reason_of(error)}")
