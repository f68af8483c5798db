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
import smart_engine

HOME = Path(langchain_smart.__file__).parent
MODULES = sorted(path.stem for path in HOME.glob("*.py") if path.stem != "__init__")
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )


def test_importing_it_loads_no_framework():
    code = "import langchain_smart, sys; print('langchain_core' in sys.modules)"
    assert python(code).stdout == "False\n"


@pytest.mark.parametrize(
    ("name", "absent", "extra"),
    [
        ("SmartChatModel", "langchain_core", "langchain"),
        ("SmartRunnable", "langchain_core", "langchain"),
        ("SmartMiddleware", "langchain", "agents"),
    ],
)
def test_a_missing_extra_is_named(name, absent, extra):
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from langchain_smart import {name}
"""
    assert f"pip install 'smart-llm[{extra}]'" in python(code).stderr


def test_public_names_resolve():
    for name in dir(langchain_smart):
        assert getattr(langchain_smart, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = langchain_smart.nothing


@pytest.mark.parametrize("module", MODULES)
def test_modules_say_what_they_are(module):
    loaded = importlib.import_module(f"langchain_smart.{module}")
    assert loaded.__doc__
    assert loaded.__all__


def test_docstring_examples_run():
    names = {n: getattr(smart_engine, n) for n in smart_engine.__all__}
    names |= {n: getattr(langchain_smart, n) for n in langchain_smart.__all__}
    from smart_engine.traces import Row

    ran = 0
    for path in HOME.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.Module):
                for code in BLOCK.findall(ast.get_docstring(node) or ""):
                    exec(textwrap.dedent(code), {**names, "Row": Row})  # noqa: S102 - our own examples
                    ran += 1
    assert ran >= 2
