"""A query engine that saves: one question at a time, under a promise.

    python examples/llama_index_query_engine.py

No key is needed: the models are scripted (see scripted_llm.py). `--live` asks real
OpenAI models instead; it needs OPENAI_API_KEY and costs money.
"""

from __future__ import annotations

import argparse
import re
import zlib

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from scripted_llm import LIVE, PRICES, live, scripted

from llama_index_smart import SmartLLM
from smart_engine.stream.state import StreamState

LAMPS = ("Alder", "Birch", "Cedar", "Elm", "Hazel", "Juniper", "Larch", "Maple", "Oak")
KINDS = ("desk", "floor", "wall", "reading", "garden")
ASPECTS = ("warranty", "weight", "price", "bulb")


def main() -> int:
    """Ask a query engine many questions, and show what that cost."""
    arguments = _arguments()
    models = live() if arguments.live else scripted(look_up, wrong="I do not know.")
    smart = SmartLLM(
        reference=models[0],
        candidates=models[1:],
        prices=LIVE if arguments.live else PRICES,
        max_disagreement=arguments.max_disagreement,
        confidence=arguments.confidence,
    )
    index = VectorStoreIndex.from_documents(
        [Document(text=sheet(lamp)) for lamp in _lamps()], embed_model=WordEmbedding()
    )
    engine = index.as_query_engine(llm=smart, similarity_top_k=2)
    for number, question in enumerate(_questions(arguments.questions)):
        answer = engine.query(question)
        if number < 3:
            print(f"{question}\n  {answer}")
    report = smart.report()
    print(f"\n{report}\n")
    for stream in report.streams:
        _explain(stream)
    return 0


class WordEmbedding(BaseEmbedding):
    """Counts words: enough to find a lamp by its name, and it needs no network."""

    def _get_text_embedding(self, text: str) -> list[float]:
        counts = [0.0] * 256
        for word in re.findall(r"\w+", text.lower()):
            counts[zlib.crc32(word.encode()) % len(counts)] += 1
        return counts

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def sheet(lamp: str) -> str:
    """Return what the catalogue says of a lamp."""
    number = zlib.crc32(lamp.encode())
    return (
        f"The {lamp} has a warranty of {2 + number % 4} years. "
        f"The {lamp} has a weight of {1 + number % 9} kg. "
        f"The {lamp} has a price of {20 + number % 180} euros. "
        f"The {lamp} has a bulb of {3 + number % 12} watts."
    )


def look_up(prompt: str) -> str:
    """Answer as a model does that reads the sheets in the prompt."""
    asked = re.findall(r"Query: What is the (\w+) of the (.+)\?", prompt)
    aspect, lamp = asked[-1]
    found = re.search(rf"The {lamp} has a {aspect} of ([^.]+)\.", prompt)
    return f"It is {found[1]}." if found else "The catalogue does not say."


def _lamps() -> list[str]:
    return [f"{name} {kind} lamp" for name in LAMPS for kind in KINDS]


def _questions(count: int) -> list[str]:
    """Return questions about lamp after lamp, as often as it takes."""
    lamps = _lamps()
    every = [f"What is the {what} of the {lamp}?" for what in ASPECTS for lamp in lamps]
    return [every[number % len(every)] for number in range(count)]


def _arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--max-disagreement", type=float, default=0.1)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--live", action="store_true", help="ask real OpenAI models")
    return parser.parse_args()


def _explain(stream: StreamState) -> None:
    """Show where a stream stands."""
    print(f"Stream {stream.task}: {stream.answered:,} answers by {stream.policy}")
    print(f"  {stream.claim}")
    print(
        f"  {stream.audits:,} were audited, {stream.found:,} of those differed; at "
        f"most {stream.possible_misses:,} answers differ, {stream.allowed:,} may."
    )


if __name__ == "__main__":
    raise SystemExit(main())
