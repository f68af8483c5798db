"""Every block of Python in the README and in the pages of `smart_engine/docs` runs.

Models with well-known names are called over HTTP, on a server of our own. Blocks that
need Ray run in `tests/on_ray`.
"""

from __future__ import annotations

import re
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


def prose(page: Path) -> str:
    """Return a page without its blocks of Python."""
    text = page.read_text(encoding="utf-8")
    for code in blocks(page):
        text = text.replace(code, "")
    return text


def headings(page: Path) -> set[str]:
    """Return what links to a page's headings say after the `#`."""
    titles = re.findall(r"^#+ (.*)", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_between_pages_lead_to_what_is_there(page):
    for path, heading in re.findall(r"\]\(([^)\s:#]*)#?([^)\s:]*)\)", prose(page)):
        target = page.parent / path if path else page
        assert target.exists()
        assert not heading or heading in headings(target)


@pytest.mark.parametrize("code", BLOCKS)
def test_a_block_runs(code, server):
    from llama_index.core import Settings

    before = Settings._llm
    try:
        exec(compile(code, "a page", "exec"), world())  # noqa: S102
    finally:
        Settings._llm = before
