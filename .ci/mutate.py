#!/usr/bin/env python
"""Do the tests bite? Changes the formulas one small thing at a time, and runs the tests on each.

    python .ci/mutate.py --sample 80 --seed 1 [MODULE ...]

A mutant is one file with one change: an operator swapped, a constant moved, a condition negated, a
minimum made a maximum, a check left out. It is killed if a test fails. TensorFlow is imported once;
each mutant is tried in a fork, by the tests that call the function it changes, quick ones first.
Which those are is seen in one run of all tests beforehand.
"""

import argparse
import ast
import copy
import gc
import importlib
import importlib.machinery
import importlib.util
import itertools
import json
import linecache
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE, TESTS = "keras_autolabel", ROOT / "tests" / "keras_autolabel"
# The test files of each module, beside the one of its own name.
COVERED_BY = {
    "buckets": (),
    "batch": (),
    "labels": ("policies", "losses", "augment/soft_crop"),
    "losses": ("policies", "augment/soft_crop"),
    "calibration": ("temperature", "metrics"),
    "metrics": ("calibration",),
    "ranking": (),
    "augment/augmentation": ("own_augmentation", "augment/contract", "augment/mixup"),
    "augment/augmix": ("augment/contract",),
    "augment/attack": ("augment/pgd",),
    "augment/blend_ops": ("augment/image_ops", "augment/randaugment"),
    "augment/chain": (),
    "augment/cutmix": ("augment/contract",),
    "augment/image_ops": ("augment/augmix", "augment/blend_ops", "augment/randaugment"),
    "augment/mixup": ("augment/contract",),
    "augment/pgd": ("augment/contract", "policies"),
    "augment/randaugment": ("augment/contract",),
    "augment/soft_crop": ("augment/contract",),
}

COMPARED = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
COMPUTED = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
PAIRS = (
    *(("minimum", "maximum"), ("reduce_min", "reduce_max"), ("min", "max"), ("any", "all")),
    *(("reduce_any", "reduce_all"), ("argmin", "argmax"), ("zeros_like", "ones_like")),
    *(("zeros", "ones"), ("floor", "ceil"), ("cos", "sin"), ("reduce_sum", "reduce_mean")),
)
RENAMED = {**dict(PAIRS), **{b: a for a, b in PAIRS}, "round": "floor"}


class Mutant(NamedTuple):
    """A module with one change.

    Attributes:
        module: Its name, as in ``COVERED_BY``.
        line: Where the change is.
        function: First line and name of the outermost function around it, None: outside of all.
        change: Old and new code.
        source: The changed file.
    """

    module: str
    line: int
    function: tuple[int, str] | None
    change: str
    source: str


# --- the mutants of a file ------------------------------------------------------------------------


def path_of(module: str) -> pathlib.Path:
    """The file of a module."""
    return ROOT / PACKAGE / f"{module}.py"


def mutants_of(module: str) -> list[Mutant]:
    """All mutants of a module that compile, in the order of its lines."""
    text = path_of(module).read_text(encoding="utf-8")
    found = []
    for node, new, function in _changes(ast.parse(text)):
        new = new if isinstance(new, str) else ast.unparse(new)
        source = _replaced(text, node, new)
        try:
            compile(source, module, "exec")
        except SyntaxError:
            continue
        old = " ".join(ast.get_source_segment(text, node).split())
        found.append(Mutant(module, node.lineno, function, f"{old}  =>  {new}", source))
    return sorted(set(found), key=lambda mutant: (mutant.line, mutant.change))


def _replaced(text: str, node: ast.AST, new: str) -> str:
    """The text with other code in place of a node's; all other lines keep their numbers."""
    lines = text.encode().splitlines(keepends=True)
    before = b"".join(lines[: node.lineno - 1]) + lines[node.lineno - 1][: node.col_offset]
    after = lines[node.end_lineno - 1][node.end_col_offset :] + b"".join(lines[node.end_lineno :])
    padding = "\n" * (node.end_lineno - node.lineno)
    # Inside brackets a line may end anywhere.
    new = f"({new}{padding})" if isinstance(node, ast.expr) else new + padding
    return (before + new.encode() + after).decode()


def _changes(
    node: ast.AST, function: tuple[int, str] | None = None, argument: str = "None"
) -> Iterator[tuple]:
    """``(node, what may replace it, the outermost function around it)``.

    Args:
        node: The node to look into.
        function: First line and name of the outermost function around it.
        argument: First argument of the innermost one.
    """
    if isinstance(node, ast.FunctionDef):
        names = [x.arg for x in node.args.args if x.arg not in ("self", "cls")]
        argument = names[0] if names else "None"
        if function is None:
            first_line = min([node.lineno, *(x.lineno for x in node.decorator_list)])
            function = first_line, node.name
    if isinstance(node, ast.If):
        yield node.test, f"not ({ast.unparse(node.test)})", function
    if isinstance(node, ast.Return) and node.value and ast.unparse(node.value) != argument:
        yield node.value, argument, function
    for new in _variants(node):
        yield node, new, function
    for child in _mutable_parts(node):
        yield from _changes(child, function, argument)


def _mutable_parts(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a node but messages, annotations, decorators and types."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return
    skipped = []
    if isinstance(node, ast.FunctionDef):
        skipped = [node.returns, *node.decorator_list]
    elif isinstance(node, ast.ClassDef):
        skipped = node.decorator_list
    elif isinstance(node, ast.arg | ast.AnnAssign):
        skipped = [node.annotation]
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "warnings.warn"):
        skipped = node.args[1:]
    elif isinstance(node, ast.keyword) and isinstance(node.value, ast.UnaryOp):
        # The last axis of a matrix is -1 and 1.
        node = node.value
    yield from (child for child in ast.iter_child_nodes(node) if child not in skipped)


def _variants(node: ast.AST) -> Iterator[ast.AST | str]:
    """What may stand in place of a node."""
    match node:
        case ast.Compare():
            for number, operator in enumerate(node.ops):
                for other in COMPARED[type(operator)]:
                    yield _with(node, ops=[*node.ops[:number], other(), *node.ops[number + 1 :]])
        case ast.BinOp() | ast.AugAssign() if type(node.op) in COMPUTED:
            yield _with(node, op=COMPUTED[type(node.op)]())
        case ast.BoolOp():
            yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        case ast.UnaryOp():
            yield node.operand
        case ast.IfExp():
            yield _with(node, body=node.orelse, orelse=node.body)
        case ast.Constant(value=bool(value)):
            yield repr(not value)
        case ast.Constant(value=int(value)):
            yield from (repr(value + 1), repr(value - 1))
        case ast.Constant(value=float(value)):
            yield from {repr(value + 1.0), repr(2.0 * value)} - {repr(value)}
        case ast.Name(id="min" | "max" | "any" | "all"):
            yield RENAMED[node.id]
        case ast.Attribute() if node.attr in RENAMED:
            yield _with(node, attr=RENAMED[node.attr])
        case ast.Call(func=ast.Attribute(attr="where"), args=[condition, one, other]):
            yield _with(node, args=[condition, other, one])
        case ast.Return(value=ast.Tuple(elts=[first, second, *rest])):
            yield _with(node, value=ast.Tuple([second, first, *rest], ast.Load()))
        case ast.Expr(value=ast.Call()):
            yield "pass"


def _with(node: ast.AST, **fields) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


# --- the tests, in a fork -------------------------------------------------------------------------


class ChangedFile(importlib.machinery.SourceFileLoader):
    """Imports one module of the package from other source than what its file holds."""

    def __init__(self, module: str, source: str):
        super().__init__(f"{PACKAGE}.{module.replace('/', '.')}", str(path_of(module)))
        self.source = source
        # AutoGraph asks for the source too, and has it read from the file again.
        read_file, lines = linecache.updatecache, source.splitlines(keepends=True)

        def updatecache(filename, module_globals=None):
            if filename != self.path:
                return read_file(filename, module_globals)
            linecache.cache[filename] = (len(source), None, lines, filename)
            return lines

        linecache.updatecache = updatecache

    def find_spec(self, name, path=None, target=None):
        """The spec of that module, none for all others."""
        if name == self.name:
            return importlib.util.spec_from_file_location(name, self.path, loader=self)
        return None

    def get_code(self, fullname):
        """The changed code, never a file of bytes."""
        return compile(self.source, self.path, "exec", dont_inherit=True)


class Selection:
    """Plugin of pytest: runs some tests alone, in an order of its own."""

    def __init__(self, names: list[str]):
        self.place = {name: number for number, name in enumerate(names)}

    def pytest_collection_modifyitems(self, items):
        """Keeps what was selected."""
        items[:] = [item for item in items if item.nodeid in self.place]
        items.sort(key=lambda item: self.place[item.nodeid])


class Survey:
    """Plugin of pytest: how long each test takes, whether it passes, and what it calls.

    Calls are ``(file, first line)``, and ``("", name)`` of what AutoGraph has written anew.

    Args:
        file: Where it is written, as JSON.
    """

    def __init__(self, file: str):
        self.file, self.tests = file, {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        """Watches a test, its fixtures included."""
        calls, watched = set(), str(ROOT / PACKAGE)

        def trace(frame, event, argument):
            code = frame.f_code
            if code.co_filename.startswith(watched):
                calls.add((code.co_filename, code.co_firstlineno))
            elif "__autograph_generated" in code.co_filename:
                calls.add(("", code.co_name.removeprefix("tf__")))

        start = time.monotonic()
        sys.settrace(trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            seconds = time.monotonic() - start
            self.tests.setdefault(item.nodeid, {}).update(seconds=seconds, calls=sorted(calls))

    def pytest_runtest_logreport(self, report):
        """Notes what did not pass."""
        if report.failed:
            self.tests.setdefault(report.nodeid, {})["failed"] = True

    def pytest_sessionfinish(self):
        """Writes all that was seen."""
        pathlib.Path(self.file).write_text(json.dumps(self.tests), encoding="utf-8")


def in_fork(run: Callable[[], int], *, seconds: float) -> int | None:
    """The exit code of a function in a process of its own, None if it takes too long."""
    child = os.fork()
    if child == 0:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        code = 99
        try:
            code = int(run())
        finally:
            os._exit(code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def run_pytest(files: list[str], *plugins, arguments: tuple[str, ...] = ()) -> int:
    """pytest on test files of this folder."""
    left_out = [f"-pno:{plugin}" for plugin in ("cacheprovider", "unraisableexception")]
    options = ["-q", "--tb=no", "-W", "ignore", *left_out, *arguments]
    return pytest.main([*options, *files], plugins=list(plugins))


def survey(modules: list[str], folder: str) -> dict[str, dict]:
    """The tests of some modules by their names: seconds, and the functions that each one calls.

    Raises:
        SystemExit: If a test fails without any change.
    """
    files = sorted({file for module in modules for file in tests_of(module)})
    seen = os.path.join(folder, "tests.json")
    in_fork(lambda: run_pytest(files, Survey(seen)), seconds=3600)
    tests = json.loads(pathlib.Path(seen).read_text(encoding="utf-8"))
    failed = [name for name, test in tests.items() if test.get("failed")]
    if failed or not tests:
        raise SystemExit(f"Tests that fail without any change: {failed or 'all'}")
    for test in tests.values():
        test["calls"] = set(map(tuple, test["calls"]))
    return tests


def tests_of(module: str) -> list[str]:
    """The files with the tests of a module."""
    paths = [TESTS / f"{name}_test.py" for name in (module, *COVERED_BY[module])]
    return [str(path.relative_to(ROOT)) for path in paths if path.exists()]


def outcome(mutant: Mutant, tests: dict[str, dict]) -> str:
    """Whether a mutant is killed: ``"killed"``, ``"timeout"``, ``"survived"`` or ``"no test"``."""
    files = tests_of(mutant.module)
    names = [name for name in tests if name.partition("::")[0] in files]
    if mutant.function is not None:
        line, function = mutant.function
        called = {(str(path_of(mutant.module)), line), ("", function)}
        names = [name for name in names if tests[name]["calls"] & called]
    names.sort(key=lambda name: tests[name]["seconds"])
    if not names:
        return "no test"

    def run():
        sys.meta_path.insert(0, ChangedFile(mutant.module, mutant.source))
        files = sorted({name.partition("::")[0] for name in names})
        return run_pytest(files, Selection(names), arguments=("-x",))

    limit = 20.0 + 5.0 * sum(tests[name]["seconds"] for name in names)
    code = in_fork(run, seconds=limit)
    return {None: "timeout", 0: "survived"}.get(code, "killed")


def main() -> None:
    """Tries the mutants, prints what became of each, and lists the survivors."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(COVERED_BY)}")
    parser.add_argument("--sample", type=int, help="try so many of each module, default all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    arguments = parser.parse_args()
    modules = arguments.modules or list(COVERED_BY)
    unknown = set(modules) - set(COVERED_BY)
    if unknown:
        parser.error(f"no such module: {', '.join(unknown)}")
    mutants, counts, survivors = {}, {}, []
    for module in modules:
        mutants[module] = mutants_of(module)
        counts[module] = len(mutants[module])
        chosen = list(range(counts[module]))
        if arguments.sample:
            size = min(arguments.sample, len(chosen))
            chosen = sorted(random.Random(arguments.seed).sample(chosen, size))
        mutants[module] = [mutants[module][number] for number in chosen]
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    # Whatever is imported here is not imported again in every fork; the package must be.
    for name in ("tensorflow", "tensorflow.keras.layers", "scipy.optimize", "sklearn.datasets"):
        importlib.import_module(name)
    # What a fork never writes to is not copied.
    gc.freeze()
    with tempfile.TemporaryDirectory() as folder:
        tests = survey(modules, folder)
    for mutant in itertools.chain.from_iterable(mutants.values()):
        result = outcome(mutant, tests)
        line = f"{PACKAGE}/{mutant.module}.py:{mutant.line}: {mutant.change}"
        print(f"{result:8}  {line}", flush=True)
        if result not in ("killed", "timeout"):
            survivors.append((mutant.module, line))
    print(f"\n{len(survivors)} survived:", *(line for _, line in survivors), sep="\n  ")
    for module in modules:
        tried = len(mutants[module])
        killed = tried - sum(name == module for name, _ in survivors)
        rate = f"{killed} of {tried} killed, {killed / tried:.0%}"
        print(f"{module}: {rate}; {counts[module]} in all")


if __name__ == "__main__":
    main()
