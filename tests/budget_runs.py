"""A job whose budget ends midway, over HTTP, with a server that bills before it fails.

Every other item meets one kind of failure. What the server may bill is compared with
the budget and with the ledger, request by request.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx
import pytest
import tenacity
from faults import ONCE, Adapter, Answer, Chains, LangChain, LlamaIndex
from loopback import Asked, Broken, Fault, Hidden, Odd, Server, serve

from langchain_smart import Price
from smart_engine.amounts import usd
from smart_engine.money.ledger import Entry

PRICES = {"big": Price(100, 300), "small": Price(60, 180)}
ITEMS = 24
LIMIT = 8
"""Most tokens of an answer; a failure is billed all of them."""

BUDGET = 0.05
"""USD, for some nine calls of the reference at their worst."""

FORMS = {
    LangChain: ("whole", "pieces", "batch"),
    Chains: ("whole", "pieces", "batch"),
    LlamaIndex: ("whole", "chat", "pieces", "texts", "batch", "chats"),
}
"""The verbs of an adapter, each sync and async."""

STREAMS = ("pieces", "texts")
BATCHES = ("batch", "chats")
SETTLED_WITHIN = 5.0
"""Seconds in which the server has read what was sent."""


class BareError(TimeoutError):
    """Python's own error, as some clients raise it; what they had caught is lost."""

    __cause__ = None


class Foreign(Exception):  # noqa: N818 - its name shall tell nothing
    """An error that nobody has heard of."""

    __cause__ = None


@dataclass(frozen=True)
class Kind:
    """A kind of failure.

    Attributes:
        answer: What the server answers, if the request reaches it.
        free: Whether the failure shows that nothing was billed.
        told: Whether the answer says what was billed.
        read: Whether the server reads the request.
        streams: Whether only streams meet it.
        leaves: Whether it is the caller that goes away.
        again: Who asks again: the members' clients, as often as they do by default; we,
            twice, as a chat model's `max_retries`, an LLM's own, or a chain's
            `with_retry` says; or nobody.
        raised: What the client raises instead of its own error.
    """

    answer: Any
    free: bool = False
    told: bool = False
    read: bool = True
    streams: bool = False
    leaves: bool = False
    again: str = "nobody"
    raised: type[Exception] | None = None


def status(code: int, **more: Any) -> Kind:
    """Return the failure that a status is; a 4xx before a model is at work is free."""
    fault = Fault("boom", code)
    return Kind(fault, free=fault.free, **more)


SILENT, LATE = Fault("silent"), {"silent", "stalled", "leaves"}
KINDS = {
    "timeout": Kind(SILENT),
    "timeout, client asks again": Kind(SILENT, again="client"),
    "timeout, we ask again": Kind(SILENT, again="we"),
    "TimeoutError": Kind(SILENT, raised=BareError),
    "foreign error": Kind(SILENT, raised=Foreign),
    "reset": Kind(Fault("reset")),
    "reset, client asks again": Kind(Fault("reset"), again="client"),
    "cut off": Kind(Broken("yes")),
    "stalled": Kind(Broken("yes", stalls=True), streams=True),
    "malformed": Kind(Fault("malformed")),
    "strange": Kind(Fault("strange")),
    "no usage": Kind(Odd("yes", usage=None)),
    "more in all": Kind(Hidden("yes", 5), told=True),
    **{str(code): status(code) for code in (500, 502, 503, 504, 529, 408)},
    "503, client asks again": status(503, again="client"),
    "503, we ask again": status(503, again="we"),
    **{str(code): status(code) for code in (400, 401, 404, 429)},
    "429, client asks again": status(429, again="client"),
    "refused": Kind("yes", free=True, read=False),
    "no such host": Kind("yes", free=True, read=False),
    "reader leaves": Kind("yes", streams=True, leaves=True),
    "cancelled": Kind(SILENT, leaves=True),
}


class Cell(NamedTuple):
    """One cell of the matrix."""

    kind: str
    adapter: type[Adapter]
    verb: str
    mode: str
    who: str

    def __str__(self) -> str:
        return "-".join([self.kind, self.adapter.__name__, *self[2:]])


def cells() -> Iterator[Cell]:
    """Yield all cells that there can be."""
    for kind, adapter in itertools.product(KINDS, FORMS):
        for rest in itertools.product(
            FORMS[adapter], ("sync", "async"), ("small", "big")
        ):
            cell = Cell(kind, adapter, *rest)
            streams = cell.verb in STREAMS
            if KINDS[kind].streams and not streams:
                continue
            if kind == "cancelled" and cell.mode == "sync":
                continue
            if kind == "reader leaves" and cell.verb != "pieces":
                continue
            if KINDS[kind].again == "client" and adapter is Chains:
                continue  # refused, with a budget
            yield cell


def script(model: str, text: Asked, attempt: int) -> Any:
    """Say what an item's text tells this model to say."""
    _, who, kind = text.split(" | ")
    return KINDS[kind].answer if who == model else "yes"


class Clients:
    """The clients of a job: what they do with a request, and when they give up."""

    def __init__(self) -> None:
        self.closed = socket.socket()
        self.closed.bind(("127.0.0.1", 0))  # and nobody listens
        self.lost = 0

    def steer(self, request: httpx.Request) -> None:
        """Send a request where its item says, and wait for it as long."""
        body = json.loads(request.content)
        _, who, kind = Asked.of(body).split(" | ")
        if who != body["model"] or kind not in KINDS:
            return
        patient = dict.fromkeys(("connect", "write", "pool"), 20.0)
        answer = KINDS[kind].answer
        if kind == "cancelled":
            request.extensions["timeout"] = {**patient, "read": 0.5}
        elif answer is SILENT:
            request.extensions["timeout"] = {**patient, "read": 0.03}
        elif isinstance(answer, Broken) and answer.stalls:
            request.extensions["timeout"] = {**patient, "read": 0.1}
        elif kind == "refused":
            request.url = request.url.copy_with(port=self.closed.getsockname()[1])
        elif kind == "no such host":
            request.url = request.url.copy_with(host="nowhere.invalid")

    async def asteer(self, request: httpx.Request) -> None:
        """Do the same."""
        self.steer(request)


@contextmanager
def surroundings(kind: Kind) -> Iterator[None]:
    """Let nobody wait long before asking again, and no name be asked of the world."""

    def find(host: Any, *rest: Any, **more: Any) -> Any:
        if str(host).endswith("nowhere.invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found(host, *rest, **more)

    found = socket.getaddrinfo
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", find)
        patch.setattr("smart_engine.runtime.requester._FIRST_PAUSE", 0.01)
        waits = "llama_index.llms.openai.utils.wait_random_exponential"
        patch.setattr(waits, lambda **_: tenacity.wait_none())
        if kind.raised is not None:
            raised: Callable[..., Any] = kind.raised
            error = "openai._base_client.APITimeoutError"
            patch.setattr(error, lambda request: raised("timed out"))
        # A stream that LlamaIndex left open is closed when it is collected: a deadlock
        # if that comes while httpcore holds its lock.
        gc.disable()
        try:
            yield
        finally:
            gc.enable()


class Ran(NamedTuple):
    """What came of a cell.

    Attributes:
        cell: The cell.
        answers: What came of each item; nothing if the whole batch was cancelled.
        server: What it asked.
        smart: What was asked.
        items: The items.
    """

    cell: Cell
    answers: list[Answer]
    server: Server
    smart: Any
    items: list[str]

    @property
    def entries(self) -> list[Entry]:
        """The rows of requests: those within a chain, where chains were asked."""
        inside = self.cell.adapter is Chains
        rows = self.smart.ledger().entries
        return [row for row in rows if (row.role == "inside") == inside]

    @property
    def bill(self) -> dict[str, float]:
        """USD that the server may bill, by model."""
        bill = dict.fromkeys(PRICES, 0.0)
        for owed in self.server.owed:
            bill[owed.model] += cost_of(owed.model, *owed[2:4])
        return bill

    def booked(self, *, unknown: bool | None = None) -> dict[str, float]:
        """USD in the ledger, by model; only of rows that are unknown, or are not."""
        booked = dict.fromkeys(PRICES, 0.0)
        for entry in self.entries:
            if unknown is None or entry.unknown == unknown:
                booked[entry.model] += entry.cost
        return booked

    @property
    def met(self) -> int:
        """How many requests met the failure."""
        return sum(self.failing(owed.model, owed.text) for owed in self.server.owed)

    def failing(self, model: str, text: str) -> bool:
        """Whether a request meets the failure."""
        _, who, kind = text.split(" | ")
        return (who, kind) == (model, self.cell.kind)


def cost_of(model: str, read: float, written: float) -> float:
    """Return what tokens cost, in USD."""
    price = PRICES[model]
    return (price.input * read + price.output * written) / 1e6


def run(cell: Cell, budget: float = BUDGET) -> Ran:
    """Do the job of a cell; it is bounded in time."""
    kind = KINDS[cell.kind]
    whose = [(cell.who, cell.kind), ("nobody", "none")]
    items = [
        f"item {n:03d} | {who} | {met}"
        for n, (who, met) in zip(range(ITEMS), itertools.cycle(whose), strict=False)
    ]
    settings: dict[str, Any] = {"prices": PRICES, "budget_usd": budget}
    if cell.who == "big":  # so few items are all put to the reference
        settings |= {"max_disagreement": 0.05, "confidence": 0.95}
    client = {"max_tokens": LIMIT, **({} if kind.again == "client" else ONCE)}
    if kind.again == "we":
        where = client if cell.adapter is LlamaIndex else settings
        where["max_retries"] = 2

    async def asked(server: Server) -> Ran:
        clients = Clients()
        hooks: Any = {"event_hooks": {"request": [clients.steer]}, "verify": False}
        ahooks = {**hooks, "event_hooks": {"request": [clients.asteer]}}
        with ExitStack() as stack:
            stack.enter_context(clients.closed)
            sync = stack.enter_context(httpx.Client(**hooks))
            async with httpx.AsyncClient(**ahooks) as asynchronous:
                at = (server.url, sync, asynchronous, client)
                adapter = cell.adapter(*at, **settings)
                ran = Ran(cell, [], server, adapter.smart, items)
                ran.answers.extend(await put(ran, adapter))
                await settled(ran)
        return ran

    with surroundings(kind), serve(script) as server:
        return asyncio.run(asyncio.wait_for(asked(server), 60))


async def put(ran: Ran, adapter: Adapter) -> list[Answer]:
    """Put the items to the verb; leave where that is the failure."""
    verb, mode = ran.cell.verb, ran.cell.mode
    if ran.cell.kind == "cancelled":
        return await cancelled(ran, adapter)
    if ran.cell.kind == "reader leaves":
        if mode == "async":
            return [await aleft(adapter, item) for item in ran.items]
        return await asyncio.to_thread(lambda: [left(adapter, i) for i in ran.items])
    if mode == "async":
        return await adapter.aask(verb, ran.items)
    return await asyncio.to_thread(adapter.ask, verb, ran.items)


def left(adapter: Adapter, item: str) -> Answer:
    """Ask for an answer, and go away after its first piece."""
    pieces = adapter.coming(item)
    try:
        next(pieces)
    except Exception as error:  # noqa: BLE001 - what came of it
        return adapter.came(error)
    finally:
        pieces.close()
    return adapter.came(("", {}))


async def aleft(adapter: Adapter, item: str) -> Answer:
    """Ask for an answer, and go away after its first piece."""
    pieces = await adapter.acoming(item)
    try:
        await anext(pieces)
    except Exception as error:  # noqa: BLE001 - what came of it
        return adapter.came(error)
    finally:
        await pieces.aclose()
    return adapter.came(("", {}))


async def cancelled(ran: Ran, adapter: Adapter) -> list[Answer]:
    """Cancel whoever asks, as soon as the failure is met."""
    if ran.cell.verb in BATCHES:
        job = asyncio.create_task(adapter.aask(ran.cell.verb, ran.items))
        while not job.done() and ran.met < 2:
            await asyncio.sleep(0.001)
        job.cancel()
        await asyncio.wait([job])
        return []
    answers = []
    for item in ran.items:
        before = ran.met
        job = asyncio.create_task(adapter.aask(ran.cell.verb, [item]))
        while not job.done() and ran.met == before:
            await asyncio.sleep(0.001)
        job.cancel()
        await asyncio.wait([job])
        if not job.cancelled():
            answers += job.result()
    return answers


async def settled(ran: Ran) -> None:
    """Wait until no call is under way, and the server has read what was sent.

    A cancelled request may never have been sent, though it is booked.
    """
    kind = KINDS[ran.cell.kind]
    sent = kind.read and not (kind.leaves and ran.cell.mode == "async")
    until = time.monotonic() + SETTLED_WITHIN
    while time.monotonic() < until:
        streams = ran.smart.report().streams
        running = any(s.unresolved or s.in_flight for s in streams)
        running |= any(t.name.startswith("smart") for t in threading.enumerate())
        read = not sent or len(ran.server.owed) >= len(ran.entries)
        if not running and read and not ran.server.in_flight:
            return
        await asyncio.sleep(0.002)


def same(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether two bills are the same, but for rounding."""
    return all(one[name] == pytest.approx(other[name], abs=1e-9) for name in PRICES)


# -- what must hold ----------------------------------------------------------------


def assert_the_budget_held(ran: Ran) -> None:
    """By the server's bill, and by the ledger."""
    assert sum(ran.bill.values()) <= BUDGET * (1 + 1e-9)
    assert sum(ran.booked().values()) <= BUDGET * (1 + 1e-9)


def assert_no_request_is_missing(ran: Ran) -> None:
    """Each that the server read has a row, and no other has, if all were sent."""
    read = Counter(owed.model for owed in ran.server.owed)
    rows = Counter(entry.model for entry in ran.entries)
    kind = KINDS[ran.cell.kind]
    assert rows >= read
    if kind.read and not (kind.leaves and ran.cell.mode == "async"):
        assert rows == read


def assert_nothing_is_free_that_was_not(ran: Ran) -> None:
    """What is known is no more than the bill, and with what is unknown no less."""
    known, all_of_it = ran.booked(unknown=False), ran.booked()
    for name, billed in ran.bill.items():
        assert known[name] <= billed + 1e-9
        assert billed <= all_of_it[name] + 1e-9


def assert_what_is_unknown_is_marked(ran: Ran) -> None:
    """In the rows, in all sums, in the certificate and in the report."""
    kind, report = KINDS[ran.cell.kind], ran.smart.report()
    unknown = Counter(entry.model for entry in ran.entries if entry.unknown)
    if kind.free or kind.told:
        assert not unknown
        assert same(ran.booked(), ran.bill)
    elif not kind.leaves:
        untold = Counter(owed.model for owed in ran.server.owed if not owed.told)
        assert unknown == untold
    inside = ran.cell.adapter is Chains
    most = ran.booked(unknown=True)
    sums = ran.smart.ledger().sums("inside" if inside else "model")
    assert same({n: sums[n].unknown if n in sums else 0.0 for n in PRICES}, most)
    told = (report.inside if inside else report.spend).items()
    assert same(dict.fromkeys(PRICES, 0.0) | {n: s.unknown for n, s in told}, most)
    assert report.unknown == pytest.approx(sum(most.values()), abs=1e-9)
    batches = sum(certificate.unknown for certificate in report.certificates)
    if ran.cell.verb in BATCHES and report.certificates:
        assert batches == pytest.approx(report.unknown, abs=1e-9)
    assert report.unknown == 0 or f"{usd(report.unknown)} USD is the worst case" in str(
        report
    )
    assert report.cost == pytest.approx(sum(ran.booked().values()), abs=1e-9)


def assert_the_failure_was_met(ran: Ran) -> None:
    """And the budget ended before the job did, unless failures were free."""
    kind = KINDS[ran.cell.kind]
    if kind.read:
        assert ran.met > (not kind.leaves)
    if ran.answers and not kind.free:
        assert sum(ran.booked().values()) > BUDGET / 4
