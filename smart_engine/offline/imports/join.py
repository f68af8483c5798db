"""Joins the calls of logs by what was asked, into the rows of a trace.

Of what was asked, only a digest is kept. Where a model was asked the same several
times, its first answer is joined to the other models' first ones, and so on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from smart_engine.errors import InvalidInputError
from smart_engine.money.pricing import Price, Usage
from smart_engine.offline.imports.content import digest
from smart_engine.offline.imports.logged import LoggedCall
from smart_engine.offline.traces import Row

__all__ = ["Joined", "join"]

_LEAST_SHARED = 0.5
"""Share of the reference's inputs that a candidate must have answered, by default."""


class Joined(NamedTuple):
    """The rows of a trace.

    Attributes:
        rows: One per input that the reference and all candidates answered.
        reference: Name of the reference.
        candidates: Names of the candidates; none if no other model has answered enough
            of the reference's inputs.
        shared: Model → inputs that it and the reference answered.
    """

    rows: list[Row]
    reference: str
    candidates: list[str]
    shared: dict[str, int]


def join(
    calls: Iterable[LoggedCall],
    prices: Mapping[str, Price],
    *,
    reference: str | None = None,
    candidates: Sequence[str] = (),
) -> Joined:
    """Return the rows of the calls, each of which must have tokens.

    Args:
        calls: The calls.
        prices: Model → price, of every model that takes part.
        reference: The model whose answers define "right"; the one that costs most per
            call, if not given.
        candidates: The other models; those that answered at least half of the
            reference's inputs, if not given.

    Raises:
        InvalidInputError: If a model that is named has no call or no price, or if no
            input was answered by all of them.

    Example:
        ```python
        calls = [
            LoggedCall("big", "Spam?", "ham", (9, 1)),
            LoggedCall("small", "Spam?", "ham", (9, 1)),
        ]
        joined = join(calls, {"big": Price(2, 8), "small": Price(0.1, 0.4)})
        assert (joined.reference, joined.candidates) == ("big", ["small"])
        assert joined.rows[0].answers == {"big": "ham", "small": "ham"}
        ```
    """
    items: dict[str, dict[str, LoggedCall]] = defaultdict(dict)
    seen = Counter[tuple[str, str]]()
    cost = defaultdict[str, float](float)
    for call in calls:
        if call.model not in prices:
            continue
        asked = digest(call.asked)
        seen[call.model, asked] += 1
        number = seen[call.model, asked]
        items[asked if number == 1 else f"{asked}-{number}"][call.model] = call
        cost[call.model] += prices[call.model].cost(Usage(*(call.tokens or (0, 0))))
    answered = Counter(model for given in items.values() for model in given)
    if not answered:
        raise InvalidInputError("prices", None, "no call is left that has a price")
    for named in (reference, *candidates):
        if named is not None and named not in answered:
            hint = f"no usable call with a price; there are: {_listed(answered)}"
            raise InvalidInputError("model", named, hint)
    chosen = reference or max(answered, key=lambda name: cost[name] / answered[name])
    shared = Counter(m for given in items.values() if chosen in given for m in given)
    total = shared.pop(chosen)
    others = list(candidates) or [
        name for name, count in shared.items() if count >= _LEAST_SHARED * total
    ]
    rows = [
        _row(item, [given[name] for name in (chosen, *others)])
        for item, given in items.items()
        if given.keys() >= {chosen, *others}
    ]
    if not rows:
        hint = f"no input was answered by all of them; with {chosen}: {_listed(shared)}"
        raise InvalidInputError("candidates", others, hint)
    return Joined(rows, chosen, others, dict(shared))


def _row(item: str, calls: Sequence[LoggedCall]) -> Row:
    gold = (call.gold for call in calls if call.gold is not None)
    return Row(
        item_id=item,
        answers={call.model: call.answer for call in calls},
        tokens={call.model: call.tokens or (0, 0) for call in calls},
        gold=next(gold, None),
    )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in counts.items()) or "none"
