"""Every block of Python in the README and in the pages of `smart_engine/docs` runs.

Models with well-known names are called over HTTP, on a server of our own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import Server, serve

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "smart_engine" / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = [
    pytest.param(code, id=f"{page.stem} {number}")
    for page in PAGES
    for number, code in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")), 1)
]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """OpenAI's settings in the environment point to our server."""
    with serve(lambda model, text, attempt: "ham") as server:
        for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):
            monkeypatch.setenv(name, server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        yield server


@pytest.fixture
def world(server: Server) -> dict[str, Any]:
    """The names that the pages take as given."""
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnableLambda
    from langchain_openai import ChatOpenAI
    from llama_index.core import Document, SummaryIndex

    return {
        "mails": [f"mail {number}" for number in range(40)],
        "index": SummaryIndex.from_documents([Document(text="It was agreed.")]),
        "retrieve": RunnableLambda(lambda question: {"question": question}),
        "rerank": RunnableLambda(lambda found: found),
        "prompt": ChatPromptTemplate.from_template("{question}"),
        "model": ChatOpenAI(model="gpt-5"),
        "parser": StrOutputParser(),
    }


def test_the_readme_has_an_example_for_each_framework():
    blocks = BLOCK.findall(PAGES[0].read_text(encoding="utf-8"))
    assert any("SmartChatModel(" in code for code in blocks)
    assert any("SmartLLM(" in code for code in blocks)


@pytest.mark.parametrize("code", BLOCKS)
def test_a_block_runs(code, world):
    from llama_index.core import Settings

    import langchain_smart

    known = {name: getattr(langchain_smart, name) for name in langchain_smart.__all__}
    before = Settings._llm
    try:
        exec(compile(code, "a page", "exec"), known | world)  # noqa: S102
    finally:
        Settings._llm = before
