"""The ledger: a row for every call, and sums that stay exact when rows are dropped.

A call is entered here once, when its result is recorded, and nowhere else: all reports
are made from these entries.
"""

from __future__ import annotations

import csv
import io
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import count, repeat
from math import fsum
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from smart_engine.bulk import Outcomes
from smart_engine.calls import Failure, Result
from smart_engine.errors import MissingExtraError, check_whole, choose, error_name
from smart_engine.money.pricing import TOKEN_KINDS, Usage
from smart_engine.money.spending import RuleCalls, Spend

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ROWS", "Entering", "Entry", "Key", "Ledger", "LedgerEntries", "LedgerScope"]

ROWS = 100_000
"""Number of rows that stay, the newest ones; some 400 bytes each."""


class Entry(NamedTuple):
    """One call: which model was asked about what, its result and its cost.

    Attributes:
        number: Number of the row, counted from 0 in the order of results; dropped rows
            are counted, too.
        at: When the call was made, in seconds since 1970, UTC; None where unknown, as
            for what was restored, and for a call that ended before it was made.
        task: Name of the task.
        batch: Number of the batch, counted from 1 in the order in which they began;
            None for a single item.
        certificate: The batch's certificate; None unless it has ended.
        item: Index of the item in its batch, or its number among the task's single
            items, counted from 0.
        model: Name of the model, as in reports: judges as `judge: …`.
        role: `reference`, `candidate`, `judge`, `embedding`; or `inside`: called by a
            chain, in whose row its cost is contained already.
        outcome: `answered`; `unreadable`: answered, but not so that the equivalence
            can read it; `failed`; `cancelled`: broken off from outside, as by an
            interrupt; `cached`: for nothing, from a cache or from an item of the batch
            that asks the same; `restored`: from a store, where it was paid for in an
            earlier run.
        error: Type of the error, where there is no answer that can be used. Its
            message is left out, for it may hold a secret.
        input_tokens: Tokens that were billed, as are those of the fields that follow;
            see `Usage`.
        cost: USD.
        estimated: Whether tokens and cost rest on an estimate: no usage was reported.
        unknown: Whether nobody told if the call was billed: it failed, and is charged
            at its most, or at 0 where nothing bounds that.
        seconds: How long the call took; None where unknown.
    """

    number: int
    at: float | None
    task: str
    batch: int | None
    certificate: str | None
    item: int
    model: str
    role: Literal["reference", "candidate", "judge", "embedding", "inside"]
    outcome: Literal[
        "answered", "unreadable", "failed", "cancelled", "cached", "restored"
    ]
    error: str | None
    input_tokens: float
    output_tokens: float
    cache_read: float
    cache_write: float
    cache_write_1h: float
    input_audio: float
    output_audio: float
    reasoning: float
    cost: float
    estimated: bool
    unknown: bool
    seconds: float | None


class Key(NamedTuple):
    """What entries are summed by; see `Entry`."""

    model: str
    role: str
    task: str
    outcome: str


_KEY_INDEX = {name: index for index, name in enumerate(Key._fields)} | {"inside": 0}
"""Name that sums are asked for by → index in a key."""

_tokens_of = attrgetter(*TOKEN_KINDS)


@dataclass(eq=False, repr=False)
class Ledger:
    """Every call so far, one by one and in sums: a snapshot.

    Attributes:
        dropped: Number of older rows that are gone. They are in all sums.

    Example:
        ```python
        from smart_engine.calls import Outcome

        entries = LedgerEntries()
        scope = LedgerScope(entries, "big", "a task")
        scope.record_call(0, "big", Outcome("yes", cost=0.5))
        scope.record_call(0, "small", Outcome("yes", cost=0.25))
        ledger = entries.ledger()
        assert len(ledger) == 2
        assert [entry.model for entry in ledger] == ["big", "small"]
        assert ledger.sums("role")["candidate"].cost == 0.25
        assert ledger.to_csv().startswith('"number","at","task","batch",')
        ```
    """

    _rows: Sequence[tuple[Any, ...]]
    _certificates: Mapping[int, str]
    _sums: Mapping[Key, Spend]
    dropped: int

    def __len__(self) -> int:
        """Return the number of rows that stay."""
        return len(self._rows)

    def __iter__(self) -> Iterator[Entry]:
        """Yield the newest rows, in the order of results."""
        return iter(self.entries)

    def __repr__(self) -> str:
        """Return the number of rows."""
        return f"<Ledger of {len(self._rows)} rows, {self.dropped} dropped>"

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """The newest rows, in the order of results."""
        ids = self._certificates
        # Rows are stored without the certificate, which follows the batch.
        rows = ((*row[:4], ids.get(row[3]), *row[4:]) for row in self._rows)
        return tuple(Entry._make(row) for row in rows)

    @property
    def keyed(self) -> Mapping[Key, Spend]:
        """What was spent, by model, role, task and outcome; dropped rows included."""
        return self._sums

    def sums(self, by: str = "model") -> dict[str, Spend]:
        """Return what was spent, by name; dropped rows are included.

        Args:
            by: `"model"`, `"role"`, `"task"` or `"outcome"`; or `"inside"`: by model,
                the calls within those of chains, which the other sums contain already.

        Raises:
            InvalidInputError: If it is none of these.
        """
        index = choose("by", by, _KEY_INDEX)
        table: dict[str, Spend] = {}
        for key, spend in self._sums.items():
            if (key.role == "inside") == (by == "inside"):
                table[key[index]] = table.get(key[index], Spend()) + spend
        return table

    def to_jsonl(self) -> str:
        """Return the rows as text, one JSON object a line."""
        return "".join(
            json.dumps(entry._asdict(), default=float) + "\n" for entry in self.entries
        )

    def to_csv(self) -> str:
        """Return the rows as comma-separated values, below the fields' names."""
        text = io.StringIO(newline="")
        # Else a name that holds a carriage return would be written as two lines.
        writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow(Entry._fields)
        for entry in self.entries:
            # What stands unquoted is read as a number: true is 1, false 0.
            writer.writerow(int(c) if isinstance(c, bool) else c for c in entry)
        return text.getvalue()

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a pandas DataFrame; `at` becomes a moment in UTC.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise MissingExtraError("frames", "a ledger as a DataFrame") from error
        frame = pd.DataFrame(self.entries, columns=list(Entry._fields))
        frame["at"] = pd.to_datetime(frame["at"].astype(float), unit="s", utc=True)
        return frame.astype({"batch": "Int64", "seconds": float})


class Entering(Protocol):
    """Enters calls that have ended."""

    def enter(
        self, key: Key, batch: int | None, item: int, error: str | None, result: Result
    ) -> None:
        """Enter an attempt at a call; `error` is its type, if there is no answer."""
        ...

    def enter_all(self, key: Key, batch: int | None, outcomes: Outcomes) -> None:
        """Enter calls that brought an answer."""
        ...


class LedgerEntries:
    """The entries and sums of all calls.

    Args:
        rows: Number of rows that stay, the newest ones; sums are of all.
        lock: Held around each entry; hold it around whatever else is done here.
        tell: Told why a call's cost is uncertain, where it is; perhaps again.
    """

    def __init__(
        self,
        rows: int = ROWS,
        lock: AbstractContextManager[Any] | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        check_whole("rows", rows, 0)
        self._kept, self._lock, self._tell = rows, lock or nullcontext(), tell
        self.begin()

    def begin(self) -> None:
        """Begin anew, without any entry."""
        # Plain tuples of plain values, which the garbage collector need not visit.
        self._rows: deque[tuple[Any, ...]] = deque(maxlen=self._kept)
        self._sums: dict[Key, list[float]] = {}
        self._entered = 0
        self._certificates: dict[int, str] = {}
        self._pruned = 0

    def enter(
        self, key: Key, batch: int | None, item: int, error: str | None, result: Result
    ) -> None:
        """Enter an attempt at a call; `error` is its type, if there is no answer."""
        usage, cost, estimated = result.usage or Usage(), result.paid, result.estimated
        at, seconds = result.timing or (None, None)
        model, role, task, outcome = key
        call = (model, role, outcome, error, *_tokens_of(usage), float(cost))
        marks = (usage.estimated, result.unknown is not None)
        spend = (1, error is not None, cost, usage.input_tokens, usage.output_tokens)
        parts = (*spend, estimated, result.unknown or 0.0)
        with self._lock:
            place = (self._entered, at, task, batch, item)
            self._rows.append((*place, *call, *marks, seconds))
            self._add(key, parts)
        if self._tell is not None and (estimated or result.unknown == 0):
            self._tell(_doubt(model, estimated=bool(estimated)))

    def enter_all(self, key: Key, batch: int | None, outcomes: Outcomes) -> None:
        """Enter calls that brought an answer, all at once."""
        began, seconds = outcomes.timings
        model, role, task, outcome = key
        paid, tokens = outcomes.paid, map(sum, outcomes.tokens[:2])
        cost = fsum(paid)
        estimated = cost if outcomes.guessed else 0.0
        parts = (len(paid), 0, cost, *tokens, estimated, 0.0)
        with self._lock:
            rows = zip(
                count(self._entered),
                began,
                repeat(task),
                repeat(batch),
                outcomes.items.tolist(),
                repeat(model),
                repeat(role),
                repeat(outcome),
                repeat(None),
                *outcomes.tokens,
                paid,
                repeat(outcomes.estimated),
                repeat(False),
                seconds,
                strict=False,  # numbers have no end
            )
            self._rows.extend(rows)
            self._add(key, parts)
        if self._tell is not None and estimated:
            self._tell(_doubt(model, estimated=True))

    def _add(self, key: Key, parts: Sequence[float]) -> None:
        """Add calls to the sums; the first part is their number."""
        sums = self._sums.get(key)
        if sums is None:
            sums = self._sums[key] = [0] * len(Spend.model_fields)
        for index, part in enumerate(parts):
            sums[index] += part
        self._entered += int(parts[0])

    def end_batch(self, batch: int, certificate: str) -> None:
        """Enter the certificate of a batch; those of batches without a row are dropped.

        Rows are searched whenever the certificates have doubled.
        """
        self._certificates[batch] = certificate
        if len(self._certificates) > 2 * self._pruned + 1000:
            held = {row[3] for row in self._rows}
            kept = {b: c for b, c in self._certificates.items() if b in held}
            self._certificates, self._pruned = kept, len(kept)

    def ledger(self) -> Ledger:
        """Return a snapshot."""
        sums = {
            key: Spend(**dict(zip(Spend.model_fields, parts, strict=True)))
            for key, parts in self._sums.items()
        }
        dropped = self._entered - len(self._rows)
        return Ledger(list(self._rows), dict(self._certificates), sums, dropped)


def _doubt(model: str, *, estimated: bool) -> str:
    """Return why what a call has cost is uncertain: it is estimated, or unknown."""
    if estimated:
        return (
            f"{model} reported no usage that can be priced: what its calls cost is "
            "estimated from their texts, and marked so"
        )
    return (
        f"a call of {model} failed without reporting usage: it may have been billed, "
        "and nothing limits its cost. It is booked at 0 USD and marked unknown; set "
        "max_tokens to book such calls at their worst case"
    )


@dataclass(frozen=True, slots=True, eq=False)
class LedgerScope:
    """Enters the calls of one batch, or of one single item.

    Args:
        entries: Where they are entered.
        reference: Name of the reference.
        task: Name of the task.
        batch: Number of the batch, if it is one.
    """

    entries: Entering
    reference: str
    task: str
    batch: int | None = None

    def record_call(
        self,
        item: int,
        model: str,
        result: Result,
        unread: BaseException | None = None,
        role: str | None = None,
    ) -> None:
        """Enter a call, each of its attempts in a row; none if it was not made.

        Args:
            item: The item.
            model: Name of the model.
            result: Its result.
            unread: Why its answer cannot be read, if so.
            role: See `Entry`; if left out, reference or candidate by its name.
        """
        if isinstance(result, Failure) and result.sat_out:
            return
        for attempt in result.earlier:
            self.record_call(item, model, attempt, role=role)
        outcome, error = "answered", unread
        if isinstance(result, Failure):
            error = result.error
            outcome = "failed" if isinstance(error, Exception) else "cancelled"
        elif result.restored:
            outcome = "restored"
        elif unread is not None:
            outcome = "unreadable"
        elif result.cached:
            outcome = "cached"
        name = None if error is None else error_name(error)
        key = self._key(model, outcome, role)
        self.entries.enter(key, self.batch, item, name, result)

    def record_calls(self, outcomes: Outcomes) -> None:
        """Enter calls that brought an answer, all at once; see `record_call`."""
        outcome = "cached" if outcomes.cached else "answered"
        outcome = "restored" if outcomes.restored else outcome
        self.entries.enter_all(self._key(outcomes.tier, outcome), self.batch, outcomes)

    def _key(self, model: str, outcome: str, role: str | None = None) -> Key:
        """Return what a call is summed by."""
        role = role or ("reference" if model == self.reference else "candidate")
        return Key(model, role, self.task, outcome)

    def record_inner_call(self, item: int, model: str, result: Result) -> None:
        """Enter a call that was made within the call of a chain."""
        self.record_call(item, model, result, role="inside")

    def record_judge_calls(self, item: int, calls: RuleCalls) -> None:
        """Enter the calls that a rule made to compare the answers to an item."""
        for name, result in calls:
            self.record_call(item, name, result, role=name.partition(":")[0])
