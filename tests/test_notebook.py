"""The notebook runs from top to bottom, and shows the bar, the report and the plots."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "tour.ipynb"


def test_it_is_kept_without_results():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 6
    assert not any(cell.outputs or cell.execution_count for cell in code)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_runs(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=500, resources=where).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    shown = [out["data"] for out in outputs if "data" in out]
    printed = "".join(out.get("text", "") for out in outputs)
    assert "done" in printed + str(shown)  # the bar
    pages = [data["text/html"] for data in shown if "text/html" in data]
    assert any("saved" in page.lower() for page in pages)
    assert sum("image/svg+xml" in data or "image/png" in data for data in shown) == 3
    (figures,) = re.findall(r"'really differ': ([\d.]+)", str(shown))
    assert 0 < float(figures) <= 0.05
    assert "at most 262 of 5250 answers" in printed
    assert "True" in str(shown[-1])
    assert "False" not in str(shown[-1])
