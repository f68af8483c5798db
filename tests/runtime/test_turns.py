"""Turns: one beginning a pass, in order, whoever gives up; nothing is held."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from smart_engine.runtime.loop import turn


class Passes:
    """Counts the passes of the running loop; `begun` says what began in which."""

    def __init__(self) -> None:
        self.number = 0
        self.begun: list[tuple[int, object]] = []
        self.loop = asyncio.get_running_loop()
        self.loop.call_soon(self._next)

    def _next(self) -> None:
        self.number += 1
        self.ticking = self.loop.call_soon(self._next)

    async def begin(self, name: object) -> None:
        await turn()
        self.begun.append((self.number, name))

    def stop(self) -> None:
        self.ticking.cancel()


def assert_one_a_pass(numbers) -> None:
    """The first does not wait; for the others the loop wakes one in every pass."""
    first, second, *others = numbers
    assert second > first
    assert others == [second + place for place in range(1, len(others) + 1)]


@pytest.fixture
async def passes():
    counted = Passes()
    await asyncio.sleep(0)
    yield counted
    counted.stop()


async def test_one_begins_in_each_pass_in_the_order_of_arrival(passes):
    await asyncio.gather(*(passes.begin(name) for name in range(50)))
    numbers, names = zip(*passes.begun, strict=True)
    assert names == tuple(range(50))
    assert_one_a_pass(numbers)


async def test_who_comes_alone_does_not_wait(passes):
    for name in range(3):
        before = passes.number
        await passes.begin(name)
        assert passes.number == before
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_who_comes_later_does_not_overtake(passes):
    first = [asyncio.create_task(passes.begin(name)) for name in range(5)]
    while len(passes.begun) < 2:
        await asyncio.sleep(0)
    await passes.begin("late")
    await asyncio.gather(*first)
    assert [name for _, name in passes.begun] == [0, 1, 2, 3, 4, "late"]


async def test_who_gives_up_while_waiting_delays_nobody(passes):
    tasks = [asyncio.create_task(passes.begin(name)) for name in range(10)]
    await asyncio.sleep(0)
    for task in tasks[2:8]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    numbers, names = zip(*passes.begun, strict=True)
    assert names == (0, 1, 8, 9)
    assert_one_a_pass(numbers)


async def test_who_is_cancelled_as_the_turn_comes_keeps_it_from_nobody():
    begun = []

    async def begin(name):
        await turn()
        begun.append(name)
        if name == 1:
            tasks[2].cancel()  # its turn may have been given already

    tasks = [asyncio.create_task(begin(name)) for name in range(5)]
    await asyncio.gather(*tasks, return_exceptions=True)
    assert begun == [0, 1, 3, 4]


async def test_what_begins_inside_of_another_beginning_begins_too(passes):
    async def nested(depth: int) -> None:
        await passes.begin(depth)
        if depth:
            await asyncio.gather(nested(depth - 1), nested(depth - 1))

    async with asyncio.timeout(30):
        await nested(5)
    assert len(passes.begun) == 63
    assert len({number for number, _ in passes.begun}) == 63


def test_a_loop_that_ended_in_the_middle_leaves_nothing_behind():
    async def cut_off() -> None:
        tasks = [asyncio.create_task(turn()) for _ in range(3)]
        await asyncio.sleep(0)
        assert not tasks[-1].done()

    async def whole() -> int:
        async with asyncio.timeout(30):
            await asyncio.gather(*(turn() for _ in range(5)))
        return 5

    asyncio.run(cut_off())
    assert asyncio.run(whole()) == 5
    with ThreadPoolExecutor(4) as pool:
        loops = [pool.submit(asyncio.run, whole()) for _ in range(12)]
        assert [loop.result(60) for loop in loops] == [5] * 12
