"""Attempts at one call: each is charged, none is made that a budget has no room for."""

from __future__ import annotations

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import copy_context
from email.utils import formatdate

import httpx
import openai
import pytest

from smart_engine.calls import Failure, Outcome, Timing
from smart_engine.money.budget import Budget
from smart_engine.money.reservations import Allowance
from smart_engine.runtime import requester as attempts
from smart_engine.runtime.failure import (
    is_untold,
    may_succeed_later,
    seconds_asked_for,
)
from smart_engine.runtime.requester import Attempts, Requester, Streaming

REQUEST = httpx.Request("POST", "http://127.0.0.1/")


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def replied(status: int, headers=None, kind=openai.APIStatusError) -> Exception:
    response = httpx.Response(status, headers=headers, request=REQUEST)
    return kind("no", response=response, body=None)


class GoogleError(Exception):
    code = 404


class BotoError(Exception):
    def __init__(self) -> None:
        self.response = {"ResponseMetadata": {"HTTPStatusCode": 403}}


UNBILLED = [
    ConnectionRefusedError(),
    socket.gaierror(),
    caused(openai.APIConnectionError(request=REQUEST), httpx.ConnectError("no")),
    caused(openai.APITimeoutError(REQUEST), httpx.ConnectTimeout("no")),
    httpx.PoolTimeout("no"),
    *(replied(status) for status in (400, 401, 403, 404, 409, 413, 422, 429)),
    caused(ValueError("an adapter's own"), replied(400)),
    GoogleError(),
    BotoError(),
]
BILLABLE = [
    TimeoutError(),
    asyncio.CancelledError(),
    KeyboardInterrupt(),
    GeneratorExit(),
    ConnectionResetError(),
    openai.APITimeoutError(REQUEST),
    caused(openai.APIConnectionError(request=REQUEST), httpx.ReadError("no")),
    httpx.RemoteProtocolError("incomplete"),
    *(replied(status) for status in (408, 499, 500, 502, 503, 504, 529)),
    ValueError("no JSON"),
    KeyError("choices"),
]


@pytest.mark.parametrize("error", UNBILLED, ids=repr)
def test_a_call_is_free_only_on_proof(error):
    assert not is_untold(Failure(error, timing=Timing(0, 1)))


@pytest.mark.parametrize("error", BILLABLE, ids=repr)
def test_what_may_have_been_billed_is_not_free(error):
    assert is_untold(Failure(error, timing=Timing(0, 1)))


def test_what_was_only_handled_before_an_error_proves_nothing():
    error = TimeoutError()  # of a second server, asked after the first one
    error.__context__ = ConnectionRefusedError()
    assert is_untold(Failure(error, timing=Timing(0, 1)))


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (openai.APITimeoutError(REQUEST), True),
        (httpx.ReadError("reset"), True),
        (replied(429), True),
        (replied(503), True),
        (replied(400), False),
        (RuntimeError("a handler's own"), False),
        (ValueError("no such model"), False),
        (asyncio.CancelledError(), False),
    ],
    ids=repr,
)
def test_another_attempt_is_made_where_it_may_help(error, again):
    assert may_succeed_later(Failure(error)) is again


class Flaky(Requester):
    """Fails with some errors, then answers; a call costs 1 USD, or at most 2."""

    def __init__(self, errors, *, retries=5, budget=None, limited=True):
        self.errors, self.made, self.limit = list(errors), 0, limited
        self._retries, self.own = retries, budget and Allowance(budget, 2.0, LOCK)
        budget and budget.reserve(2.0)

    context = staticmethod(copy_context)

    def allowance(self, model):
        return self.own

    def retries(self, model):
        return self._retries

    def worst_case(self, model):
        return 2.0 if self.limit else None

    def _make(self):
        self.made += 1
        if self.errors:
            raise self.errors.pop(0)
        return Outcome("yes", 1.0)

    def prepare(self, model, verb, *, shown):
        return getattr(self, verb)

    call = _make

    async def acall(self):
        return self._make()

    def stream(self):
        yield self._make()

    async def astream(self):
        yield self._make()

    def result(self, model, answer):
        return answer

    def joined(self, model, pieces):
        return pieces[-1]

    def failed(self, model, pieces, error):
        return Failure(error)


LOCK = nullcontext()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(attempts, "_FIRST_PAUSE", 0.0)


async def made_by(requester: Requester, how: str):
    if how == "call":
        return Attempts(requester, "big").run()
    if how == "acall":
        return await Attempts(requester, "big").arun()
    streaming, error = Streaming(requester, "big"), None
    try:
        if how == "stream":
            [*streaming.stream()]
        else:
            [piece async for piece in streaming.astream()]
    except Exception as ended:  # noqa: BLE001
        error = ended
    except asyncio.CancelledError as ended:
        error = ended
    return streaming.result(error)


HOW = pytest.mark.parametrize("how", ["call", "acall", "stream", "astream"])


@HOW
async def test_each_attempt_is_charged(how):
    errors = [TimeoutError(), ConnectionRefusedError(), replied(503)]
    result = await made_by(Flaky(errors), how)
    assert isinstance(result, Outcome)
    assert [attempt.error for attempt in result.earlier] == errors
    assert [attempt.unknown for attempt in result.earlier] == [2.0, None, 2.0]
    assert (result.paid, result.total) == (1.0, 5.0)


@HOW
async def test_the_last_attempt_s_error_is_the_call_s(how):
    errors = [TimeoutError(str(number)) for number in range(3)]
    requester = Flaky(errors, retries=2)
    result = await made_by(requester, how)
    assert isinstance(result, Failure)
    assert result.error is errors[2]
    assert [attempt.error for attempt in result.earlier] == errors[:2]
    assert result.total == 6.0
    assert requester.made == 3


@HOW
async def test_no_attempt_is_made_that_a_budget_has_no_room_for(how):
    budget = Budget(5.0, LOCK)
    requester = Flaky([TimeoutError() for _ in range(9)], budget=budget)
    result = await made_by(requester, how)
    assert requester.made == 2  # a third one might have made it 6 USD
    assert result.total == 4.0
    budget.settle(requester.own.reserved, result.total)
    assert budget.left == pytest.approx(1.0)


@HOW
async def test_what_nothing_bounds_is_marked(how):
    result = await made_by(Flaky([TimeoutError()], retries=0, limited=False), how)
    assert (result.unknown, result.paid) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "900", "retry-after": "1"}, 0.9),
        ({"retry-after": "90"}, 90),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "0"}, None),
    ],
    ids=str,
)
def test_a_server_is_obeyed_that_asks_to_wait(headers, seconds):
    error = replied(429, headers)
    assert may_succeed_later(Failure(error))
    assert seconds_asked_for(error) == seconds


def test_a_server_may_ask_to_wait_until_a_moment():
    later, earlier = (formatdate(time.time() + s, usegmt=True) for s in (100, -100))
    asked = seconds_asked_for(replied(429, {"retry-after": later}))
    assert asked is not None
    assert 0 < asked <= 101
    assert seconds_asked_for(replied(429, {"retry-after": earlier})) is None


@pytest.mark.parametrize(
    ("status", "headers", "again"),
    [
        (400, {"x-should-retry": "true"}, True),
        (503, {"x-should-retry": "false"}, False),
        (503, {"x-should-retry": "perhaps"}, True),
        (429, {"retry-after": "999"}, False),  # longer than any client waits
    ],
    ids=str,
)
def test_a_server_is_obeyed_that_says_whether_to_try_again(status, headers, again):
    assert may_succeed_later(Failure(replied(status, headers))) is again


async def cancelled_in_a_pause(requester, how) -> Failure:
    task = asyncio.create_task(made_by(requester, how))
    while not requester.made:
        await asyncio.sleep(0)
    task.cancel()
    return await task


@pytest.mark.parametrize("how", ["acall", "astream"])
async def test_a_call_that_is_cancelled_in_a_pause_is_no_attempt(how):
    refused = replied(429, {"retry-after": "30"})
    result = await cancelled_in_a_pause(Flaky([refused]), how)
    assert isinstance(result.error, asyncio.CancelledError)
    assert (result.timing, result.unknown, result.total) == (None, None, 0.0)
    assert [attempt.error for attempt in result.earlier] == [refused]


def test_a_call_that_is_given_up_in_a_pause_ends_with_the_attempt_before():
    refused = replied(429, {"retry-after": "30"})
    requester = Flaky([refused])
    made = Attempts(requester, "big")
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(made.run)
        while not requester.made:
            pass
        made.give_up()
        result = future.result(10)
    assert (result.error, result.earlier, requester.made) == (refused, (), 1)
