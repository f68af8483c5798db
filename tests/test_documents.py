"""Every block of Python in the README and in the pages of `smart_engine/docs` runs.

Models with well-known names are called over HTTP, on a server of our own. Blocks that
need Ray run in `tests/on_ray`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import Server, serve
from pages import blocks, settings, world

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "smart_engine" / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(code, id=f"{page.stem} {number}")
    for page in PAGES
    for number, code in enumerate(blocks(page), 1)
    if "import ray" not in code
]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """OpenAI's settings in the environment point to our server."""
    with serve(lambda model, text, attempt: "ham") as server:
        for name, value in settings(server.url).items():
            monkeypatch.setenv(name, value)
        yield server


def test_the_readme_has_an_example_for_each_framework():
    found = blocks(PAGES[0])
    assert any("SmartChatModel(" in code for code in found)
    assert any("SmartLLM(" in code for code in found)


@pytest.mark.parametrize("code", BLOCKS)
def test_a_block_runs(code, server):
    from llama_index.core import Settings

    before = Settings._llm
    try:
        exec(compile(code, "a page", "exec"), world())  # noqa: S102
    finally:
        Settings._llm = before
