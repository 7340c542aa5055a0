"""What the benchmarks share: rounds in turns in one process, a table, JSON and a plot.

Whatever does the same is warmed up, then takes its turn in every round, and is compared round by
round: what else the machine does meets all of them. On one core, seconds of the processor are
counted, which leave out what the machine does for others.
"""

import json
import math
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from absl import flags, logging
from tensorflow import keras

from keras_autolabel.plots.style import line_style, new_figure, tidy

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines what every benchmark takes; a module that is merely imported defines nothing."""
    flags.DEFINE_integer("rounds", 5, "Rounds, of which the median is printed.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Seed of what is drawn.", lower_bound=0)
    flags.DEFINE_integer(
        "cores",
        1,
        "Threads. With 1, seconds of the processor are counted; with more, those of the clock.",
        lower_bound=1,
    )
    flags.DEFINE_boolean("tiny", False, "Only whether it runs: sizes whose times mean nothing.")
    flags.DEFINE_string("output_dir", None, "Where to write JSON of all rounds, and a plot.")


def _children() -> float:
    """Seconds of the processor that processes took which have ended."""
    times = os.times()
    return times.children_user + times.children_system


CLOCKS = {"processor": time.process_time, "wall": time.perf_counter, "children": _children}
# A round lasts at least so long, by repeating what is quicker.
LEAST_SECONDS = 0.05
# A first call that took longer has warmed up enough.
LONG_FIRST_SECONDS = 5.0
LONGEST_ERROR = 100


class Way(NamedTuple):
    """One of several ways to do the same.

    Attributes:
        name: Whose it is.
        build: Makes the function that does it once, or as often as the number that it returns. What
            ``build`` or the function raises, a missing package, say, is reported in the table.
        note: What it does less or otherwise; or a function that says so of the built function.
    """

    name: str
    build: Callable[[], Callable[[], int | None]]
    note: str | Callable[[Callable], str] = ""


class Case(NamedTuple):
    """What is done, and in which ways.

    Attributes:
        what: A title.
        ways: The first is what the others are compared with.
        units: How many of ``unit`` are done at a time.
        unit: What a time is of.
        grows: What grows, and how large it is here, for the plot; None: stands alone.
        clock: One of ``CLOCKS``, or a function that gives seconds; None: as --cores says.
    """

    what: str
    ways: Sequence[Way]
    units: float = 1
    unit: str = "image"
    grows: tuple[str, float] | None = None
    clock: str | Callable[[], float] | None = None


def benchmark(name: str, cases: Callable[[], Iterable[Case]], argv: Sequence[str]) -> None:
    """Measures cases, prints a table, and writes what was measured: the ``main`` of each binary.

    Args:
        name: Of the benchmark and the files that it writes.
        cases: Gives the cases; called when the threads are set.
        argv: What absl left of the command line.
    """
    if len(argv) > 1:
        sys.exit(f"benchmarks.{name}: Unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    tf.config.threading.set_intra_op_parallelism_threads(FLAGS.cores)
    tf.config.threading.set_inter_op_parallelism_threads(FLAGS.cores)
    about = {"benchmark": name, **machine(), "cores": FLAGS.cores, "rounds": FLAGS.rounds}
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print("| what | by | time | × the first | first call | |")
    print("| --- | --- | ---: | ---: | ---: | --- |")
    results = []
    for case in cases():
        for row in measure(case):
            results.append(row)
            print(table_row(row), flush=True)
    if FLAGS.output_dir:
        folder = pathlib.Path(FLAGS.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**about, "results": results}, indent=1)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        plot_growth(results).savefig(folder / f"{name}.png", dpi=80)


def machine() -> dict[str, str]:
    """What the times depend on: the processor, TensorFlow, Keras."""
    models = []
    if pathlib.Path("/proc/cpuinfo").exists():
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.machine()
    versions = {"TensorFlow": tf.__version__, "Keras": getattr(keras, "__version__", "")}
    return {"processor": processor, **versions, "Python": platform.python_version()}


def measure(case: Case) -> list[dict[str, Any]]:
    """The rounds of each way of a case: seconds a unit, and ratios to those of the first way."""
    name = case.clock or ("processor" if FLAGS.cores == 1 else "wall")
    clock = name if callable(name) else CLOCKS[name]
    name = clock.__name__ if callable(name) else name
    rows, runs = [], []
    for way in case.ways:
        row = {"what": case.what, "grows": case.grows, "by": way.name, "unit": case.unit}
        rows.append(row | {"clock": name, "note": "", "error": "", "seconds": [], "ratios": []})
        try:
            start = time.perf_counter()
            run = way.build()
            run()
            rows[-1]["first_seconds"] = time.perf_counter() - start
            if rows[-1]["first_seconds"] < LONG_FIRST_SECONDS:
                run()
        except Exception as error:  # Whatever keeps a peer from running is what there is to report.
            rows[-1]["error"] = _in_one_line(error)
        else:
            runs.append((way, rows[-1], run))
    for _ in range(FLAGS.rounds):
        for _, row, run in runs:
            row["seconds"].append(seconds_of(run, clock) / case.units)
    for way, row, run in runs:
        row["note"] = way.note(run) if callable(way.note) else way.note
        row["ratios"] = [x / y for x, y in zip(row["seconds"], rows[0]["seconds"], strict=False)]
    return rows


def seconds_of(run: Callable[[], int | None], clock: Callable[[], float]) -> float:
    """Seconds of what is done once, over as many times as take at least a moment."""
    least = 0.0 if FLAGS.tiny else LEAST_SECONDS
    count, start = 0, clock()
    while (spent := clock() - start) < least or not count:
        count += run() or 1
    return spent / count


def peak_megabytes(run: Callable[[], object]) -> float:
    """Memory that a run takes at its peak, above what the process had before it.

    Args:
        run: What is done.

    Returns:
        Millions of bytes; NaN where the system does not count them as Linux does.
    """
    if not pathlib.Path("/proc/self/clear_refs").exists():
        return math.nan
    # Forgets the peak of the process so far.
    pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = _kilobytes("VmRSS")
    run()
    return 1.024e-3 * (_kilobytes("VmHWM") - before)


def _kilobytes(name: str) -> int:
    status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition(f"{name}:")[2].split()[0])


def table_row(row: dict[str, Any]) -> str:
    """What was measured of a way, as a line of a table in Markdown."""
    if row["error"]:
        return f"| {row['what']} | {row['by']} | | | | does not run: {row['error']} |"
    ratio = ""
    if row["ratios"]:
        low, middle, high = (f(row["ratios"]) for f in (min, statistics.median, max))
        ratio = f"{middle:.3g} ({low:.3g} to {high:.3g})"
    seconds = f"{_readable(statistics.median(row['seconds']))} / {row['unit']}"
    first = f"{row['first_seconds']:.1f} s"
    return f"| {row['what']} | {row['by']} | {seconds} | {ratio} | {first} | {row['note']} |"


def _readable(seconds: float) -> str:
    for factor, unit in ((1e9, "ns"), (1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def _in_one_line(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".replace("|", "/").split())
    return text if len(text) <= LONGEST_ERROR else text[:LONGEST_ERROR] + "..."


def plot_growth(results: Sequence[dict[str, Any]]):
    """A figure with a panel for everything that grows; both axes are logarithmic."""
    growing = [row for row in results if row["grows"] and row["seconds"]]
    units = {row["grows"][0]: row["unit"] for row in growing}
    figure = new_figure(4.2 * max(1, len(units)), 3.8)
    for number, panel in enumerate(units):
        axes = figure.add_subplot(1, len(units), number + 1)
        lines = {}
        for row in growing:
            if row["grows"][0] == panel:
                point = row["grows"][1], statistics.median(row["seconds"])
                lines.setdefault((row["what"], row["by"]), []).append(point)
        for index, ((what, by), points) in enumerate(lines.items()):
            axes.plot(*zip(*points, strict=True), label=f"{what}, {by}", **line_style(index))
        axes.set_xscale("log")
        axes.set_yscale("log")
        tidy(axes, xlabel=panel, ylabel=f"seconds / {units[panel]}")
        ticks = sorted({row["grows"][1] for row in growing if row["grows"][0] == panel})
        axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks], rotation=45)
        axes.set_xticks([], minor=True)
        axes.legend(fontsize=7, frameon=False)
    return figure
