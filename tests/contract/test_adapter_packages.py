"""Light to import, clear when something is missing, documented by what runs."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import langchain_smart
import llama_index_smart
import smart_engine

PACKAGES = {langchain_smart: "langchain_core", llama_index_smart: "llama_index"}
HOMES = {package: Path(package.__file__).parent for package in PACKAGES}
MODULES = [
    ".".join(path.relative_to(home.parent).with_suffix("").parts)
    for package, home in HOMES.items()
    for path in sorted(home.rglob("*.py"))
    if path.stem != "__init__"
]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
both = pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.__name__)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("package", "framework", "name"),
    [
        ("langchain_smart", "langchain_core", "SmartChatModel"),
        ("llama_index_smart", "llama_index", "SmartLLM"),
    ],
)
def test_what_takes_long_to_load_is_loaded_late(package, framework, name):
    """The framework with what needs it, SciPy with the first decision."""
    code = f"""
import sys, {package}
print({framework!r} in sys.modules)
{package}.{name}
print("scipy" in sys.modules)
"""
    assert python(code).stdout == "False\nFalse\n"


@pytest.mark.parametrize(
    ("package", "name", "absent", "extra"),
    [
        ("langchain_smart", "SmartChatModel", "langchain_core", "langchain"),
        ("langchain_smart", "SmartRunnable", "langchain_core", "langchain"),
        ("langchain_smart", "SmartMiddleware", "langchain", "agents"),
        ("llama_index_smart", "SmartLLM", "llama_index", "llama-index"),
        ("llama_index_smart", "LangChainLLM", "langchain_core", "langchain"),
    ],
)
def test_a_missing_extra_is_named(package, name, absent, extra):
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from {package} import {name}
"""
    assert f"pip install 'smart-llm[{extra}]'" in python(code).stderr


@both
def test_public_names_resolve(package):
    for name in dir(package):
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = package.nothing


def test_modules_say_what_they_are():
    loaded = [importlib.import_module(module) for module in MODULES]
    assert not [m.__name__ for m in loaded if not (m.__doc__ and m.__all__)]


@both
def test_docstring_examples_run(package):
    names = {n: getattr(smart_engine, n) for n in smart_engine.__all__}
    names |= {n: getattr(package, n) for n in package.__all__}
    from smart_engine.offline.traces import Row

    ran = 0
    for path in HOMES[package].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.Module):
                for code in BLOCK.findall(ast.get_docstring(node) or ""):
                    exec(textwrap.dedent(code), {**names, "Row": Row})  # noqa: S102 - our own examples
                    ran += 1
    assert ran >= 2


@pytest.mark.parametrize(
    ("package", "other"),
    [(langchain_smart, "llama_index"), (llama_index_smart, "langchain_smart")],
)
def test_neither_adapter_imports_the_other(package, other):
    for path in HOMES[package].rglob("*.py"):
        assert f"import {other}" not in path.read_text()
        assert f"from {other}" not in path.read_text()
