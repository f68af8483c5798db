"""The example of data engines runs in those that are installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "data_engines.py"


PACKAGES = {"pandas": "pandas", "dask": "dask", "daft": "daft", "spark": "pyspark"}
SLOW = {"spark": [pytest.mark.slow]}  # it starts a Java, and processes of its own


@pytest.mark.parametrize(
    "engine", [pytest.param(name, marks=SLOW.get(name, ())) for name in PACKAGES]
)
def test_rows_are_answered_in_any_data_engine(engine):
    pytest.importorskip(PACKAGES[engine])
    if engine == "spark" and shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    command = [sys.executable, str(EXAMPLE), "--engine", engine]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    shown = run.stdout.splitlines()
    assert shown[1].split() == ["Win", "a", "prize", "now!", "spam"]
