"""Prints how many files of ours one call passes through, and how often it changes file.

    python tests/hops.py [--steps]

A batch of one item and one audited single call are traced in both adapters, from the
verb to the answer, construction and imports left out. A file is entered when one of its
functions is called; a hop is a call from a function in another file of ours. With
`--steps`, each call of a function is printed, indented below its caller.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from types import FrameType

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from llama_index.core.llms.mock import MockLLM

from langchain_smart import Price, SmartChatModel
from llama_index_smart import SmartLLM

ROOT = Path(__file__).resolve().parents[1]
OURS = {"smart_engine", "langchain_smart", "llama_index_smart"}


class Trace:
    """Collects the files that calls enter, in all threads."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}
        self.steps: list[str] = []
        self.hops = 0

    def follow(self, work: Callable[[], object]) -> None:
        """Run a piece of work and collect what it enters."""
        threading.setprofile(self._event)
        sys.setprofile(self._event)
        try:
            work()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def _event(self, frame: FrameType, event: str, _: object) -> None:
        entered = ours(frame)
        if event != "call" or entered is None:
            return
        self.files[entered] = self.files.get(entered, 0) + 1
        callers = [each for each in _callers(frame) if ours(each) is not None]
        if not callers or ours(callers[0]) != entered:
            self.hops += 1
        place = f"{entered}:{frame.f_code.co_firstlineno}"
        self.steps.append(f"{'  ' * len(callers)}{frame.f_code.co_qualname}  {place}")


def _callers(frame: FrameType) -> Iterator[FrameType]:
    while (caller := frame.f_back) is not None:
        yield caller
        frame = caller


def ours(frame: FrameType) -> str | None:
    """Return a frame's file, if it is one of ours."""
    path = Path(frame.f_code.co_filename)
    if not path.is_relative_to(ROOT):
        return None
    name = path.relative_to(ROOT)
    return str(name) if name.parts[0] in OURS else None


def answering(name: str) -> GenericFakeChatModel:
    """Return a model that always says yes."""
    usage = {"input_tokens": 10, "output_tokens": 1, "total_tokens": 11}
    answers = repeat(AIMessage("yes", usage_metadata=usage))
    return GenericFakeChatModel(name=name, messages=answers)


def smart() -> SmartChatModel:
    """Return a smart model that has answered once: what loads late is loaded."""
    made = SmartChatModel(
        reference=answering("big"),
        candidates=[answering("small")],
        min_saving=0,  # the candidate is asked at once
        prices={"big": Price(10, 30), "small": Price(1, 3)},
    )
    made.invoke("warm up")
    made.batch(["warm up"])
    return made


class Small(MockLLM):
    """A candidate, of another name than the reference."""

    @classmethod
    def class_name(cls) -> str:
        return "Small"


def smart_llm() -> SmartLLM:
    """Return a smart LLM that has answered once."""
    made = SmartLLM(
        reference=MockLLM(),
        candidates=[Small()],
        min_saving=0,
        prices={"MockLLM": Price.per_call(0.01), "Small": Price.per_call(0.001)},
    )
    made.complete("warm up")
    made.complete_batch(["warm up"])
    return made


ASKED = "Is 7 a prime number?"


def main() -> None:
    """Print the figures of a batch and of a single call."""
    for name, made, verb in (
        ("one batch item", smart, lambda model: model.batch([ASKED])),
        ("one audited invoke", smart, lambda model: model.invoke(ASKED)),
        ("LlamaIndex, a batch", smart_llm, lambda model: model.complete_batch([ASKED])),
        ("LlamaIndex, complete", smart_llm, lambda model: model.complete(ASKED)),
    ):
        trace, model = Trace(), made()
        trace.follow(lambda verb=verb, model=model: verb(model))
        print(f"{name}: {len(trace.files)} files, {trace.hops} hops")
        if "--steps" in sys.argv:
            print("\n".join(trace.steps))
            continue
        for file, calls in sorted(trace.files.items(), key=lambda pair: -pair[1]):
            print(f"    {calls:4} {file}")


if __name__ == "__main__":
    main()
