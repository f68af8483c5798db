"""A local Ray of two cores; without Ray there is no test in this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

collect_ignore_glob: list[str] = []
try:
    import ray
except ModuleNotFoundError:
    collect_ignore_glob.append("*")

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def _paths() -> Iterator[None]:
    """Let workers import what tests do; stop Ray when all tests are done."""
    paths = [str(HERE.parent), str(HERE), *os.environ.get("PYTHONPATH", "").split(":")]
    before = os.environ.copy()
    os.environ["PYTHONPATH"] = ":".join(filter(None, paths))
    os.environ["RAY_AUTH_MODE"] = "disabled"
    # Else they wait for all other programs.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray reads it so
    try:
        yield
    finally:
        ray.shutdown()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def cluster(_paths: None) -> None:
    """Start it, unless it runs."""
    if ray.is_initialized():
        return
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=300_000_000,
        log_to_driver=False,
        _metrics_export_port=None,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
