r"""Which part of a text is the answer.

A text is read where it *is* the answer, once the wrappers that carry no meaning are
off, or where it says in an explicit form which part is: "Answer: B", "#### 42",
`{"label": "spam"}`. Nothing is searched for in prose: what bears on an answer there,
a negation or a doubt, no pattern reads.
"""

from __future__ import annotations

import json
import re
import textwrap
from numbers import Number
from typing import Any

from smart_engine.equivalence.rule import excerpt
from smart_engine.errors import UnparseableAnswerError

__all__ = ["answer_part", "equation_result", "located", "text_of", "unwrap"]

_INVISIBLE = "\ufeff\u200b\u2060"
_STOPS = (".", "。")
_BEFORE_STOP = ")]}%°+#$€£\"'`*”’»"
"""What a full stop may follow, besides letters and digits."""

_STRONG = (
    "answer|antwort|r[ée]ponse|respuesta|risposta|resposta|ответ|答案|回答|"
    "final[ _]answer"
)
_WORD = (
    rf"(?:{_STRONG}|label|class|classification|category|sentiment|rating|score|grade|"
    "result|verdict|prediction|decision|output|response|conclusion|choice|value|"
    "number|total|date|type|intent|topic|solution)"
)
"""What an answer may be called."""

_COMMENT = "reason|reasoning|explanation|rationale|justification|evidence|confidence"
_BRACED = r"\{(?P<inner>(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})+)\}"
_FENCE = r"[ \t]*(?P<fence>`{3,8}|~{3,8})[ \t]*"
_FENCED = "(?P<inner>(?:(?!(?P=fence)).)+)"
_QUOTES = tuple(map(tuple, ('""', "''", "``", "“”", "‘’", "«»", "„“", "「」")))


def _patterns(*forms: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(form, re.DOTALL | re.IGNORECASE) for form in forms)


_WRAPPERS = _patterns(
    *(f"{left}(?P<inner>[^{left}{right}]+){right}" for left, right in _QUOTES),
    r"\*\*(?P<inner>\w(?:[^*]*[\w.])?)\*\*",
    rf"{_FENCE}(?:(?:text|txt|plaintext|json)?[ \t]*\n|json[ \t]|(?!.*\n))"
    rf"{_FENCED}(?P=fence)",
    rf"\\boxed{_BRACED}",
    r"<(?P<tag>answer|final_answer)>(?P<inner>.+)</(?P=tag)>",
)
"""What may stand around a whole answer, whatever it is."""

_VALUE_WRAPPERS = _WRAPPERS + _patterns(
    r"(?P<mark>\*\*?|__?)(?P<inner>[^*_]+)(?P=mark)",
    rf"{_FENCE}[\w+-]*[ \t]*\n{_FENCED}(?P=fence)",
    rf"\\(?:text|textbf|mathbf|mathrm){_BRACED}",
    r"(?P<math>\$\$?)(?P<inner>[^$]+)(?P=math)",
    r"\\\((?P<inner>(?:(?!\\\)).)+)\\\)",
    r"\\\[(?P<inner>(?:(?!\\\]).)+)\\\]",
    rf"<(?P<tag>{_WORD}|b|strong|em|i)>(?P<inner>.+)</(?P=tag)>",
)
"""What may stand around a label, a number or a date besides: code keeps all of this."""

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_THOUGHTS = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
_COMMENT_LINE = re.compile(rf"(?i)[\s*_]*(?:{_COMMENT})[*_]*:.*")
_RETRACTS = re.compile(
    r"(?i)\b(?:actually|wait|correction|second thought|instead|however|but|wrong|"
    r"mistake|rather|unsure|not sure|uncertain|scratch)\b"
)
_LEAD = (
    r"(?:(?:so|thus|hence|then|therefore|finally|overall|in conclusion),? )?"
    r"(?:(?:the|my) )?(?:final |correct |best |right )?"
)
_VERB = r"(?:[*_]*\s?[:\uff1a](?:[*_]+(?=\s))?|\s+is\b:?)"
_START = (
    r"(?:\A|\n\s{0,9}\n|(?:(?<=[.!?])\s{1,9}|\n)(?=[\W_]{0,9}[^\Wa-z\d_]|#|\\boxed))"
    r"[\s#*_]{0,9}"
)
"""A new text, paragraph, or sentence or line that starts with a capital."""

_FORM = re.compile(
    rf"{_START}(?i:(?P<strong>####|(?=\$*\\boxed)|{_LEAD}(?:{_STRONG}){_VERB})"
    rf"|{_LEAD}{_WORD}{_VERB}|there is no doubt:|(?:it is|it['’]s|this is)\s)\s*"
)
"""What says that the answer follows; `strong` forms may follow prose."""

_EQUATION_SIDE = re.compile(
    r"[a-z]|(?=.*\d)[\d.,\s+\-*/×÷·^()%$€£]*[\d)%]", re.IGNORECASE
)


def text_of(answer: Any) -> str:
    """Return the text of an answer that is one: a string, a number or a date.

    Raises:
        UnparseableAnswerError: If it is anything else, whose text may not say it all.
    """
    if isinstance(answer, bool):
        return str(answer).lower()
    if isinstance(answer, str | Number):
        return str(answer)
    if hasattr(answer, "isoformat"):
        return str(answer.isoformat())
    raise UnparseableAnswerError(f"no text but a {type(answer).__name__}")


def unwrap(text: str, *, value: bool = False) -> str:
    """Return a text without what may stand around it and its last full stop.

    Args:
        text: The whole answer.
        value: Whether it is known to be a label, a number or a date.
    """
    while True:
        lines = text.strip(_INVISIBLE).splitlines()
        text = textwrap.dedent("\n".join(map(str.rstrip, lines))).strip("\n")
        stopless = text[:-1].rstrip() if text.endswith(_STOPS) else text
        wrappers = _VALUE_WRAPPERS if value else _WRAPPERS
        if stopless[:1].isalnum():
            wrappers = ()  # all of them begin with a mark
        matches = (wrapper.fullmatch(stopless) for wrapper in wrappers)
        inner = next((m["inner"] for m in matches if m and m["inner"].strip()), None)
        if inner is None:
            ends = stopless[-1:]
            kept = ends and (ends.isalnum() or ends in _BEFORE_STOP)
            return stopless if kept else text
        text = inner


def answer_part(text: str) -> str:
    r"""Return the part of a text that is a label, a number or a date.

    It is all of the text if no form says which part is.

    Raises:
        UnparseableAnswerError: If several parts could be.

    Example:
        ```python
        assert answer_part("First 5, then 12.\n#### **60**") == "60"
        assert answer_part('{"label": "spam", "reason": "no sender"}') == "spam"
        assert answer_part("It is not spam") == "not spam"
        ```
    """
    part = located(text, value=True)
    return unwrap(_labelled(part) or part, value=True).translate(_FULL_WIDTH)


def located(text: str, *, value: bool = False) -> str:
    """Return the part of a text that is the answer, whatever it is.

    Args:
        text: The whole answer.
        value: See `unwrap`; comments and weaker forms such as "Label: …" are read for
            values only.

    Raises:
        UnparseableAnswerError: If several parts could be.
    """
    text = _after_thoughts(text)
    body, comments = unwrap(text, value=value), ""
    if value:
        body, comments = _without_comments(body)
    if _RETRACTS.search(comments):
        raise UnparseableAnswerError(f"a comment that bears on {excerpt(text)}")
    forms = list(_FORM.finditer(body))
    strong = [form for form in forms if form["strong"] is not None]
    if value and not strong:
        before = body[: forms[0].start()] if len(forms) == 1 else "prose"
        strong = [] if _without_comments(f"\n{before}")[0].strip() else forms
    if not strong:
        return unwrap(body, value=value)
    if body[: strong[-1].start()].rstrip().endswith((":", ",", ";")):
        raise UnparseableAnswerError(f"a quoted answer in {excerpt(text)}")
    part = unwrap(body[strong[-1].end() :], value=value)
    for form in strong[:-1]:
        line = body[form.end() :].partition("\n")[0]
        if unwrap(line, value=value).lower() != part.lower():
            raise UnparseableAnswerError(f"several answers in {excerpt(text)}")
    return part


def _after_thoughts(text: str) -> str:
    """Return what follows the thoughts of a model, whose first tag may be missing."""
    before, *tags = _THOUGHTS.split(text)  # text, "" or "/", text, ...
    match tags:
        case []:
            return before
        case ["/", after]:
            return after
        case ["", _, "/", after] if not before.strip():
            return after
    raise UnparseableAnswerError(f"an answer among thoughts: {excerpt(text)}")


def _without_comments(text: str) -> tuple[str, str]:
    """Return a text without the lines at its end that comment on it, and those."""
    first, *lines = text.split("\n")
    kept = len(lines)
    while kept and (not lines[kept - 1].strip() or _is_comment(lines[kept - 1])):
        kept -= 1
    return "\n".join([first, *lines[:kept]]), "\n".join(lines[kept:])


def _is_comment(line: str) -> bool:
    return _COMMENT_LINE.fullmatch(line) is not None


def _labelled(text: str) -> str | None:
    """Return the answer in an object that holds it, and comments at most."""
    try:
        pairs = json.loads(
            text,
            object_pairs_hook=tuple,
            parse_int=str,
            parse_float=str,
            parse_constant=str,
        )
    except (ValueError, RecursionError):
        return None
    if not isinstance(pairs, tuple):
        return None
    rest = [
        (name, value)
        for name, value in pairs
        if not re.fullmatch(_COMMENT, name, re.IGNORECASE)
    ]
    if len(rest) != 1 or not re.fullmatch(_WORD, rest[0][0], re.IGNORECASE):
        return None
    value = rest[0][1]
    return text_of(value) if isinstance(value, str | bool) else None


def equation_result(text: str) -> str:
    """Return what the last sign of equality in `x = 7` or `3 + 4 = 7` leads to.

    Raises:
        UnparseableAnswerError: If a side is neither one letter nor plain arithmetic.
    """
    *sides, result = text.split("=")
    if all(_EQUATION_SIDE.fullmatch(side.strip()) for side in sides):
        return result.strip()
    raise UnparseableAnswerError(f"no equation that can be read in {excerpt(text)}")
