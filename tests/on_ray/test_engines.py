"""The example of data engines runs in those that are installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "data_engines.py"


@pytest.mark.parametrize("engine", ["pandas", "dask", "daft"])
def test_rows_are_answered_in_any_data_engine(engine):
    pytest.importorskip(engine)
    command = [sys.executable, str(EXAMPLE), "--engine", engine]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    shown = run.stdout.splitlines()
    assert shown[1].split() == ["Win", "a", "prize", "now!", "spam"]
