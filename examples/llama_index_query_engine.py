"""LlamaIndex: a RAG query engine that saves, one question at a time.

    python examples/llama_index_query_engine.py

It needs `pip install llama-index-llms-openai`. No key is needed; `--live` calls OpenAI
instead (OPENAI_API_KEY, costs money).
"""

from __future__ import annotations

import re
import zlib
from typing import Any

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.llms.openai import OpenAI
from offline import PRICES, command_line, openai

from llama_index_smart import SmartLLM
from smart_engine import Number

LAMPS = ("Alder", "Birch", "Cedar", "Elm", "Hazel", "Juniper", "Larch", "Maple", "Oak")
KINDS = ("desk", "floor", "wall", "reading", "garden")
ASPECTS = ("warranty", "weight", "price", "bulb")


def main() -> int:
    """Ask a query engine many questions; show the cost and the guarantee."""
    arguments = command_line(__doc__, items=500).parse_args()
    with openai(live=arguments.live, otherwise=look_up):
        smart = SmartLLM(
            reference=OpenAI(model="gpt-5"),
            candidates=[OpenAI(model="gpt-5-mini"), OpenAI(model="gpt-5-nano")],
            prices=PRICES,
            equivalence=Number(),
            max_disagreement=0.1,
            confidence=0.95,
        )
        sheets = [Document(text=sheet(lamp)) for lamp in _lamps()]
        index = VectorStoreIndex.from_documents(sheets, embed_model=WordEmbedding())
        engine = index.as_query_engine(llm=smart, similarity_top_k=2)
        for number, question in enumerate(_questions(arguments.items)):
            answer = engine.query(question)
            if number < 3:
                print(f"{question}\n  {answer}")
    report = smart.report()
    print(f"\n{report}\n")
    for stream in report.streams:
        print(f"Stream {stream.task}: {stream.answered:,} answers by {stream.policy}")
        print(f"  {stream.claim}")
        print(
            f"  {stream.audits:,} were audited, {stream.found:,} of those differed; at "
            f"most {stream.possible_misses:,} answers differ, {stream.allowed:,} may."
        )
    return 0


class WordEmbedding(BaseEmbedding):
    """Counts words: enough to find a lamp by its name, without a network."""

    def _get_text_embedding(self, text: str) -> list[float]:
        counts = [0.0] * 1024
        for word in re.findall(r"\w+", text.lower()):
            counts[zlib.crc32(word.encode()) % len(counts)] += 1
        return counts

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def sheet(lamp: str) -> str:
    """Return a lamp's data sheet."""
    number = zlib.crc32(lamp.encode())
    return (
        f"The {lamp} has a warranty of {2 + number % 4} years. "
        f"The {lamp} has a weight of {1 + number % 9} kg. "
        f"The {lamp} has a price of {20 + number % 180} euros. "
        f"The {lamp} has a bulb of {3 + number % 12} watts."
    )


def look_up(messages: list[dict[str, Any]], slips: bool) -> str:
    """Answer from the sheets in the prompt; a slip reads the wrong line."""
    prompt = messages[-1]["content"]
    aspect, lamp = re.findall(r"Query: What is the (\w+) of the (.+)\?", prompt)[-1]
    if slips:
        aspect = ASPECTS[ASPECTS.index(aspect) - 1]
    found = re.search(rf"The {lamp} has a {aspect} of ([^.]+)\.", prompt)
    return f"It is {found[1]}." if found else "The catalogue does not say."


def _lamps() -> list[str]:
    return [f"{name} {kind} lamp" for name in LAMPS for kind in KINDS]


def _questions(count: int) -> list[str]:
    """Return `count` questions about the lamps in turn."""
    lamps = _lamps()
    every = [f"What is the {what} of the {lamp}?" for what in ASPECTS for lamp in lamps]
    return [every[number % len(every)] for number in range(count)]


if __name__ == "__main__":
    raise SystemExit(main())
