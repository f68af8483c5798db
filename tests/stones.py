"""Three hundred stones: what is known of them, and two models that read about them.

The models know nothing of their own: an answer is found in the prompt or not at all, so
a program that puts its prompts together wrongly gets wrong answers. `small` reads as
well as `big`, but errs on one stone in 25.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from loopback import Asked, Calls, Fault

STONES = range(300)
COLOURS = ("red", "green", "blue", "white", "black", "grey", "brown")
BY_WORD = {"colour": r"is \w+", "box": r"lies in box \d+"}


def colour_of(stone: int) -> str:
    """Say which colour a stone is."""
    return f"Stone {stone} is {COLOURS[stone % len(COLOURS)]}."


def box_of(stone: int) -> str:
    """Say which box a stone lies in."""
    return f"Stone {stone} lies in box {stone % 11}."


def colour_question(stone: int) -> str:
    return f"What colour is stone {stone}?"


def box_question(stone: int) -> str:
    return f"In which box does stone {stone} lie?"


def is_hard(stone: int) -> bool:
    """Say whether `small` errs on it."""
    return stone % 25 == 7


class ByNumber(BaseEmbedding):
    """Places a text on a circle by the first number in it: neighbours are alike."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return _on_circle(_number(text))

    def _get_query_embedding(self, query: str) -> list[float]:
        return _on_circle(_number(query) + 0.1)  # no two stones are equally far

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


@cache
def index_of(*facts: Callable[[int], str]) -> VectorStoreIndex:
    """Return an index of what is known of the first stones."""
    documents = [Document(text=fact(stone)) for stone in STONES[:60] for fact in facts]
    return VectorStoreIndex.from_documents(documents, embed_model=ByNumber())


def read(model: str, text: Asked, attempt: int) -> str | Calls | Fault:
    """Answer as `model`."""
    said = "\n".join(_content(message) for message in text.body["messages"])
    try:
        reader = next(READERS[marker] for marker in READERS if marker in said)
        stone, right, wrong = reader(said, text.body)
    except Exception as error:  # noqa: BLE001 - the program under test is told
        return Fault(f"{error!r} in reading: {said}", 400)
    return wrong if model == "small" and is_hard(stone) else right


Reading = tuple[int, "str | Calls", "str | Calls"]
"""The stone in question, the right answer and a wrong one."""


def _answer(said: str, body: dict[str, Any]) -> Reading:
    """Answer a question from the context, or keep the answer that is there already."""
    asked = [_content(m) for m in body["messages"] if m["role"] == "user"]
    question = re.findall(r"Query: (.*)|$", asked[-1])[0] or asked[-1]
    stone = _number(" ".join([question, *asked]))
    return stone, _found(question, stone, said), f"Stone {stone} is plaid."


def _condense(said: str, body: dict[str, Any]) -> Reading:
    stone = _number(said)
    return stone, box_question(stone), box_question(stone + 50)


def _rank(said: str, body: dict[str, Any]) -> Reading:
    given = said.split("Let's try this now:")[1]
    stone = _number(given.split("Question:")[1])
    (place,) = re.findall(rf"Document (\d+):\s+Stone {stone} ", given)
    other = 1 if place != "1" else 2
    ranked = f"Doc: {place}, Relevance: 9\nDoc: {other}, Relevance: 3"
    return stone, ranked, f"Doc: {other}, Relevance: 8"


def _choose(said: str, body: dict[str, Any]) -> Reading:
    """Choose the source whose description speaks of what is asked."""
    question = re.findall(r"question: '(.*)'", said)[0]
    word = next(word for word in BY_WORD if word in question)
    (place,) = re.findall(rf"\((\d+)\) .*{word}", said)
    chosen, other = int(place), 3 - int(place)
    stone = _number(question)
    if "tools" not in body:
        return stone, _choice(choice=chosen), _choice(choice=other)
    return stone, _selection(index=chosen), _selection(index=other)


def _choice(**chosen: int) -> str:
    return json.dumps([{**chosen, "reason": "It says so."}])


def _selection(**chosen: int) -> Calls:
    return Calls([("SingleSelection", {**chosen, "reason": "It says so."})])


def _divide(said: str, body: dict[str, Any]) -> Reading:
    stone = _number(said.rsplit("<User Question>", maxsplit=1)[-1])
    colour = {"sub_question": colour_question(stone), "tool_name": "colours"}
    box = {"sub_question": box_question(stone), "tool_name": "boxes"}
    both, one = json.dumps({"items": [colour, box]}), json.dumps({"items": [box]})
    return stone, both, one


def _judge(said: str, body: dict[str, Any]) -> Reading:
    claim, context = said.rsplit("Information: ", maxsplit=1)[-1].split("\nContext: ")
    right, wrong = ("YES", "NO") if claim in context else ("NO", "YES")
    return _number(claim), right, wrong


def _act(said: str, body: dict[str, Any]) -> Reading:
    """Call the tool that the question names; then say what it returned."""
    question, *later = [m for m in body["messages"] if m["role"] != "system"]
    asked = _content(question)
    stone = _number(asked)
    if later:
        return stone, f"I see: {_content(later[-1])}", "I see nothing."
    name = "colour_of" if "colour" in asked else "box_of"
    return stone, Calls([(name, {"stone": stone})]), Calls([(name, {"stone": 0})])


def _think(said: str, body: dict[str, Any]) -> Reading:
    """Do the same in words."""
    stone, right, wrong = _act(said, body)
    return stone, _in_words(right, stone), _in_words(wrong, stone)


def _in_words(step: str | Calls, stone: int) -> str:
    if isinstance(step, str):
        return f"Thought: I can answer.\nAnswer: {step.replace('Observation: ', '')}"
    ((name, arguments),) = step.calls
    given = json.dumps(arguments)
    return f"Thought: I need a tool.\nAction: {name}\nAction Input: {given}"


def _title(said: str, body: dict[str, Any]) -> Reading:
    stone = _number(said)
    return stone, f"On stone {stone}", f"A title on {stone}"


def _whole_title(said: str, body: dict[str, Any]) -> Reading:
    stone = _number(said)
    return stone, f"All about stone {stone}", f"Untitled {stone}"


def _keywords(said: str, body: dict[str, Any]) -> Reading:
    stone, colour = re.findall(r"Stone (\d+) is (\w+)", said)[-1]
    return int(stone), f"stone {stone}, {colour}", f"stones, {colour}"


READERS: dict[str, Callable[[str, dict[str, Any]], Reading]] = {
    "You are designed to help with a variety of tasks": _think,
    "You look things up": _act,
    "rephrase the follow up question": _condense,
    "Respond with the numbers of the documents": _rank,
    "Some choices are given below": _choose,
    "output a list of relevant sub-questions": _divide,
    "supported by the context": _judge,
    "Give a title that summarizes": _title,
    "the comprehensive title": _whole_title,
    "unique keywords": _keywords,
    "Here are the relevant documents": _answer,
    "Original Answer": _answer,
    "not prior knowledge": _answer,
}
"""What a prompt says → who reads it."""


def _found(question: str, stone: int, said: str) -> str:
    """Return the sentences that answer a question, each once."""
    wanted = [form for word, form in BY_WORD.items() if word in question]
    found: Iterable[str] = re.findall(rf"Stone {stone} (?:{'|'.join(wanted)})\.", said)
    return " ".join(dict.fromkeys(found)) or "I do not know."


def _content(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content)


def _number(text: str) -> int:
    """Return the first number of a stone in a text."""
    return int(re.findall(r"(?:[Ss]tone|on|Untitled) (\d+)", text)[0])


def _on_circle(number: float) -> list[float]:
    angle = 2 * math.pi * number / len(STONES)
    return [math.cos(angle), math.sin(angle)]
