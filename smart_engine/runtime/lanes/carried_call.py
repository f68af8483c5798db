"""One call that is carried in a batch: its request is written, and its reply read.

Callbacks, tracers and caches of the user's see the reading alone. What an answer costs
is what its model's own class reads from the reply.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import Context

from smart_engine.calls import Call, Failure, Result
from smart_engine.errors import SmartError
from smart_engine.runtime.lanes.carrier import GoneError, NoReply
from smart_engine.runtime.lanes.exchange import Exchange, Reply, Request, exchange
from smart_engine.runtime.requester import Attempts, Clock, Requester

__all__ = ["CarriedCall", "LostError"]

_Answer = Reply | NoReply


class LostError(SmartError):
    """A call's batch was left before its answer came."""


class CarriedCall:
    """One call on its way.

    Args:
        call: The call.
        requester: Puts its item to models.
        context: The context in which it does.
    """

    def __init__(self, call: Call, requester: Requester, context: Context) -> None:
        self.call = call
        self._requester, self._context = requester, context
        self._attempts = Attempts(requester, call.tier, carried=True)
        self._clock = Clock()

    # -- in synchronous code ---------------------------------------------------

    def write(self) -> Request | Result:
        """Return the request that the call sends, or its result if it sends none."""
        return self._context.run(self._write)

    def _write(self) -> Request | Result:
        with exchange() as written, suppress(Exception, Exchange.WrittenError):
            self._requester.unseen().prepare(self.call.tier, "call", shown=False)()
        if written.request is not None:
            return written.request
        with exchange(closed=True):  # it is in a cache, or cannot be sent
            return self._attempts.make()

    def read(self, answer: _Answer) -> Result:
        """Return the result of the call."""
        return self._timed(self._context.run(self._read, answer))

    def _read(self, answer: _Answer) -> Result:
        if not isinstance(answer, Reply):
            return self._unanswered(answer)
        with exchange(answer):
            return self._attempts.make()

    # -- in asynchronous code --------------------------------------------------

    async def awrite(self) -> Request | Result:
        """Return the request that the call sends, or its result if it sends none."""
        return await asyncio.create_task(self._awrite(), context=self._context)

    async def _awrite(self) -> Request | Result:
        with exchange() as written, suppress(Exception, Exchange.WrittenError):
            requester = self._requester.unseen()
            await requester.prepare(self.call.tier, "acall", shown=False)()
        if written.request is not None:
            return written.request
        with exchange(closed=True):
            return await self._attempts.amake()

    async def aread(self, answer: _Answer) -> Result:
        """Return the result of the call."""
        reading = asyncio.create_task(self._aread(answer), context=self._context)
        return self._timed(await reading)

    async def _aread(self, answer: _Answer) -> Result:
        if not isinstance(answer, Reply):
            return self._unanswered(answer)
        with exchange(answer):
            return await self._attempts.amake()

    # -- in both ---------------------------------------------------------------

    def again(self, result: Result) -> bool:
        """Whether the call is to be made again, in another batch."""
        if not self._attempts.again(result):
            return False
        self._attempts.skip_pause()
        return True

    def live(self) -> tuple[Context, Attempts]:
        """Return what makes the call live from here on."""
        self._attempts.go_on_with(self._requester.live())
        return self._context, self._attempts

    def lost(self) -> Result:
        """Return the result of a call whose reply nobody reads: it may be billed."""
        return self._maybe_billed(
            LostError("its batch was left before its answer came")
        )

    def _unanswered(self, why: NoReply) -> Result:
        """Return the result of a call that has no reply."""
        if isinstance(why, GoneError):
            return self._maybe_billed(why)
        return self._attempts.failed(why)

    def _maybe_billed(self, error: SmartError) -> Result:
        return self._attempts.ended(Failure(error, timing=self._clock.timing))

    def _timed(self, result: Result) -> Result:
        """Return a result with the time since the request was first written."""
        return result if result.timing is None else self._clock.timed(result)
