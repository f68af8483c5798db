"""The wheel in an empty environment: all that a user who installs it needs is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: object, folder: Path) -> str:
    """Run a command in a folder, isolated from this environment; return its output."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=CLEAN,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


CLEAN = {
    name: value
    for name, value in os.environ.items()
    if name not in {"PYTHONPATH", "VIRTUAL_ENV"} and not name.startswith("OPENAI")
}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_it_runs_the_readme_and_the_demo(tmp_path):
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT, folder=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "smart_engine/offline/data/toxicity.jsonl.gz" in names
    assert not [name for name in names if name.startswith(("tests", "examples"))]
    venv.create(tmp_path / "empty", with_pip=False)
    python = tmp_path / "empty" / "bin" / "python"
    pip = (*pip[:3], "--python", python, *pip[3:])
    pins = ROOT / "requirements-dev.txt"
    run(*pip, "install", "--constraint", pins, f"{wheel}[all]", folder=tmp_path)
    smart = tmp_path / "empty" / "bin" / "smart"
    lines = run(smart, "demo", "--trials", 1, "--json", folder=tmp_path).splitlines()
    assert json.loads(lines[-1])["items"] == 5250
    page, program = ROOT / "README.md", ROOT / "tests" / "pages.py"
    shown = run(python, program, page, folder=tmp_path)
    assert shown.count("ran\n") == page.read_text(encoding="utf-8").count("```python")
