"""The blocks of Python in a page, and the names that pages take as given.

Without pytest, so that an installed wheel can be tried with them, too:
`python tests/pages.py README.md`.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from loopback import serve

BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[str]:
    """Return the blocks of a page."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def settings(url: str) -> dict[str, str]:
    """Return OpenAI's settings in the environment that lead to our server."""
    return {
        **dict.fromkeys(("OPENAI_BASE_URL", "OPENAI_API_BASE"), url),
        "OPENAI_API_KEY": "none",
    }


def world() -> dict[str, Any]:
    """Return the names that the pages take as given."""
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnableLambda
    from langchain_openai import ChatOpenAI
    from llama_index.core import Document, SummaryIndex

    import langchain_smart

    known = {name: getattr(langchain_smart, name) for name in langchain_smart.__all__}
    return known | {
        "mails": [f"mail {number}" for number in range(40)],
        "index": SummaryIndex.from_documents([Document(text="It was agreed.")]),
        "retrieve": RunnableLambda(lambda question: {"question": question}),
        "rerank": RunnableLambda(lambda found: found),
        "prompt": ChatPromptTemplate.from_template("{question}"),
        "model": ChatOpenAI(model="gpt-5"),
        "parser": StrOutputParser(),
    }


def main(page: Path) -> None:
    """Run every block of a page; the first that fails is an error."""
    with serve(lambda model, text, attempt: "ham") as server:
        os.environ.update(settings(server.url))
        for number, code in enumerate(blocks(page), 1):
            exec(compile(code, f"{page.name}, block {number}", "exec"), world())  # noqa: S102
            print(f"block {number} ran")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
