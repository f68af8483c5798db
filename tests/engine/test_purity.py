"""The engine stays pure, light to import, documented; its examples run."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import smart_engine

ROOT = Path(smart_engine.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
EDGES = {"cli", "runtime", "store", "__main__.py"}
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
PURE = [path for path in FILES if path.relative_to(ROOT).parts[0] not in EDGES]
MODULES = sorted(
    module.name for module in pkgutil.walk_packages([str(ROOT)], "smart_engine.")
)
IMPURE = {
    "aiohttp",
    "asyncio",
    "concurrent",
    "datetime",
    "http",
    "httpx",
    "multiprocessing",
    "openai",
    "os",
    "random",
    "requests",
    "select",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
    "urllib",
}
CLOCKS = {"fromtimestamp", "now", "today", "utcnow"}
FRAMEWORKS = ("langchain", "llama_index", "openai")
ROOMS = [
    {"amounts", "warn"},
    {"errors", "row"},
    {"guarantee", "tiers"},
    {"bulk", "calls", "money"},  # a call has a price, money counts calls
    {"equivalence"},
    {"evidence"},
    {"labels"},
    {"strategies"},
    {"batch"},
    {"stream"},
    {"jobs"},
    {"offline"},
    {"report"},
    {"serving"},
    {"store"},
    {"runtime"},
    {"cli"},
    {"__main__"},
]
"""Rooms of the engine, lowest first: each imports from its own line and those above."""
OPENING = (".open", ".read_text", ".read_bytes", ".write_text", ".write_bytes")


def name_of(path: Path) -> str:
    """Name a file as tests should be listed."""
    return path.relative_to(ROOT).as_posix()


def imported(tree: ast.AST) -> set[str]:
    """Return the top-level packages a module imports, wherever it does."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def dotted(node: ast.AST) -> str:
    """Return `a.b.c` of an attribute chain, or what there is of it."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_no_clock_thread_network_or_framework() -> None:
    offenders = {}
    for path in PURE:
        tree = TREES[path]
        packages = imported(tree)
        if path.name == "dates.py":  # calendars are pure: none of them asks for today
            packages -= {"datetime"}
        attributes = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        impure = packages & IMPURE | attributes & CLOCKS
        impure |= {name for name in packages if name.startswith(FRAMEWORKS)}
        if impure:
            offenders[name_of(path)] = impure
    assert not offenders


def test_rooms_import_only_from_the_rooms_below() -> None:
    level = {room: place for place, rooms in enumerate(ROOMS) for room in rooms}
    offenders = []
    for path in FILES:
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room in {"__init__", "docs"}:
            continue
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.ImportFrom):
                package, _, module = (node.module or "").partition(".")
                if package == "smart_engine" and module:
                    other = module.split(".")[0]
                    if level[other] > level[room]:
                        offenders.append((name_of(path), node.module))
    assert not offenders


def test_only_the_edges_touch_files_and_no_randomness_is_global() -> None:
    offenders = {}
    for path in FILES:
        used = {dotted(node) for node in ast.walk(TREES[path])}
        numpys = {n for n in used if re.fullmatch(r"(np|numpy)\.random\.\w+", n)}
        wrong = numpys - {"np.random.default_rng", "np.random.Generator"}
        if path.name not in {"traces.py", "report.py"} and path in PURE:
            wrong |= {n for n in used if n == "open" or n.endswith(OPENING)}
        if wrong:
            offenders[name_of(path)] = wrong
    assert not offenders


def test_every_module_is_documented_and_says_what_is_public() -> None:
    def declares(tree: ast.Module) -> bool:
        return any(
            isinstance(node, ast.Assign) and dotted(node.targets[0]) == "__all__"
            for node in tree.body
        )

    trees = TREES.items()
    assert not [name_of(path) for path, tree in trees if not ast.get_docstring(tree)]
    assert not [name_of(path) for path, tree in trees if not declares(tree)]


def test_what_a_module_calls_public_exists() -> None:
    missing = []
    for module in ["smart_engine", *MODULES]:
        loaded = importlib.import_module(module)
        missing += [(module, n) for n in loaded.__all__ if not hasattr(loaded, n)]
    assert not missing


def in_a_fresh_interpreter(code: str) -> str:
    """Run code where nothing is imported yet; return what it prints."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


HEAVY = "langchain llama_index openai scipy.stats typer rich pandas matplotlib"


@pytest.mark.parametrize("names", ["", "[getattr(smart_engine, n) for n in dir()]"])
def test_importing_the_engine_is_light(names: str) -> None:
    printed = in_a_fresh_interpreter(
        f"""
        import sys, smart_engine
        {names.replace("dir()", "dir(smart_engine)")}
        heavy = {HEAVY.split()!r}
        print([m for m in sys.modules if m.startswith(tuple(heavy))])
        """
    )
    assert printed.strip() == "[]"


def test_dir_lists_the_public_names_and_each_loads_when_asked_for() -> None:
    printed = in_a_fresh_interpreter(
        """
        import smart_engine
        assert dir(smart_engine) == sorted(smart_engine.__all__)
        for name in dir(smart_engine):
            assert getattr(smart_engine, name).__module__.startswith("smart_engine.")
            print(name)
        """
    )
    assert set(printed.split()) >= {
        "BatchSession",
        "Guarantee",
        "Price",
        "Tier",
        "replay",
    }
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = smart_engine.nothing_of_that_name


def examples() -> list[tuple[str, str]]:
    """Return every python block in the engine's docstrings, with its module's name."""
    found = []
    documented = ast.Module | ast.ClassDef | ast.FunctionDef
    for path, tree in TREES.items():
        relative = path.relative_to(ROOT.parent).with_suffix("")
        module = ".".join(relative.parts).removesuffix(".__init__")
        for node in ast.walk(tree):
            if isinstance(node, documented):
                text = ast.get_docstring(node) or ""
                blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
                found += [(module, textwrap.dedent(block)) for block in blocks]
    return found


def test_examples_in_docstrings_run() -> None:
    found = examples()
    assert len(found) >= 12
    public = {name: getattr(smart_engine, name) for name in smart_engine.__all__}
    broken = []
    for module, code in found:
        names = public | vars(importlib.import_module(module))
        try:
            exec(compile(code, f"example in {module}", "exec"), names)  # noqa: S102
        except Exception as error:  # noqa: BLE001 - all are reported together
            broken.append((module, code, repr(error)))
    assert not broken
