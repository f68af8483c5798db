"""The guide's blocks that need Ray run as a reader would run them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from loopback import serve
from pages import blocks, settings, world

GUIDE = Path(__file__).parents[2] / "smart_engine" / "docs" / "guide.md"
BLOCKS = [code for code in blocks(GUIDE) if "import ray" in code]


@pytest.fixture
def own_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the block start Ray itself; its actors find OpenAI at a server of ours."""
    with serve(lambda model, text, attempt: "ham") as server:
        for name, value in settings(server.url).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        monkeypatch.setenv("RAY_worker_niceness", "0")
        ray.shutdown()
        yield
        ray.shutdown()


@pytest.mark.parametrize("code", BLOCKS)
def test_a_block_of_ray_runs(code, own_ray):
    names = world()
    exec(compile(code, "a page", "exec"), names)  # noqa: S102
    done = names["done"]
    assert done.certificate.valid
    assert [row["answer"] for row in done.dataset.take_all()] == ["ham"] * 40


def test_the_guide_has_a_block_of_ray():
    assert BLOCKS
