"""Jobs killed at a random moment and begun again: what was kept is not bought twice.

`make verify` makes a thousand of them; the default tests a few.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Any

import pytest
import sqlalchemy
from killed_jobs import AT_ONCE, ITEMS, VERBS, Nursery
from loopback import Asked, Server, serve

SEEDS = range(5)


@dataclass
class Trap:
    """Answers for both models; springs at a certain request."""

    after: int | None = None
    seen: int = 0
    sprung: Event = field(default_factory=Event)
    lock: Any = field(default_factory=Lock)

    def __call__(self, model: str, text: Asked, attempt: int) -> str:
        with self.lock:
            self.seen += 1
            if self.after is not None and self.seen >= self.after:
                self.sprung.set()
        number = int(text.split()[-1])
        wrong = model == "small" and number % 13 == 0
        return "no" if wrong else f"yes {number % 3}"


@dataclass
class Killer:
    """Runs jobs in processes of their own, and kills them.

    Attributes:
        server: What they ask; its attempts are those of the job at hand.
        trap: Its script.
        nursery: What forks them.
    """

    server: Server
    trap: Trap
    nursery: Nursery

    def run(
        self,
        kind: str,
        store: str,
        seed: int,
        file: Path,
        kill: int | None = None,
        wait: float = 0,
    ) -> bool:
        """Run a job; kill it some seconds after so many requests. Was it killed?"""
        self.trap.after, self.trap.seen = kill, 0
        self.trap.sprung.clear()
        job = self.nursery.begin(kind, store, seed, file)
        if kill is not None:
            assert self.trap.sprung.wait(60)
            time.sleep(wait)
            with suppress(ProcessLookupError):  # it may have ended meanwhile
                os.kill(job, signal.SIGKILL)
        code = self.nursery.ended()
        assert code in (0, -signal.SIGKILL)
        return code != 0


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    trap = Trap()
    with serve(trap, latency=0.001) as server, Nursery.of(server.url) as nursery:
        yield Killer(server, trap, nursery)


def kept(store: str) -> set[tuple[str, str]]:
    """Return the calls whose answers a store holds, as the server counts them."""
    url = store if "://" in store else f"sqlite:///{store}"
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect() as connection:
            wanted = sqlalchemy.text("select tier, item from smart_outcomes_1")
            return {(tier, ITEMS[item]) for tier, item in connection.execute(wanted)}
    except sqlalchemy.exc.DBAPIError:  # killed before there was a table
        return set()
    finally:
        engine.dispose()


def kill_and_resume(
    killer: Killer, stores: Callable[[], str], folder: Path, runs: int
) -> Counter[str]:
    """Kill that many jobs, begin each again, and count what came of it."""
    file = folder / "record.json"
    rng = random.Random(11)
    whole: dict[tuple[str, int], tuple[dict[str, Any], int]] = {}
    counts: Counter[str] = Counter()
    for number in range(runs):
        kind = list(VERBS)[number % len(VERBS)]
        seed = SEEDS[number // len(VERBS) % len(SEEDS)]
        if (kind, seed) not in whole:
            killer.nursery.warm_up(kind)
            killer.server.attempts.clear()
            assert not killer.run(kind, stores(), seed, file)
            record = json.loads(file.read_text())
            whole[kind, seed] = record, killer.server.attempts.total()
        expected, calls = whole[kind, seed]
        store = stores()
        killer.server.attempts.clear()
        after, wait = rng.randint(1, calls), rng.choice([0, rng.random() * 0.004])
        killed = killer.run(kind, store, seed, file, after, wait)
        held = kept(store)
        counts["killed" if killed else "ended before"] += 1
        if killed:
            counts[f"killed with {4 * len(held) // (calls + 1)} of 4 parts kept"] += 1
        assert not killer.run(kind, store, seed, file)
        record = json.loads(file.read_text())
        twice = [call for call, n in killer.server.attempts.items() if n > 1]
        bought_twice = [call for call in twice if call in held]
        in_flight = [call for call in twice if call not in held]
        counts["runs"] += 1
        counts["answers kept when killed"] += len(held)
        counts["asked again, in flight when killed"] += len(in_flight)
        counts["most of them in one run"] = max(
            counts["most of them in one run"], len(in_flight)
        )
        counts["kept answers bought twice"] += len(bought_twice)
        assert not bought_twice
        assert len(in_flight) <= AT_ONCE
        assert killer.server.attempts.total() == calls + len(in_flight)
        assert record["answers"] == expected["answers"]
        assert record["certificate"] == expected["certificate"]
        assert (record["restored"] > 0) == bool(held)
        if counts["runs"] % 100 == 0:
            told = "\n".join(f"{n:7,}  {name}" for name, n in sorted(counts.items()))
            print(f"\n{told}", flush=True)
    return counts


@pytest.mark.parametrize(
    ("kind", "runs"),
    [
        ("sqlite", 1),
        pytest.param("sqlite", 24, marks=pytest.mark.slow),
        pytest.param("postgres", 6, marks=pytest.mark.slow),
    ],
)
def test_killed_jobs_buy_nothing_twice(kind, runs, killer, stores, tmp_path):
    counts = kill_and_resume(killer, partial(stores, kind), tmp_path, runs)
    assert counts["killed"] >= runs / 2


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(3000)
def test_a_thousand_killed_jobs_buy_nothing_twice(killer, stores, tmp_path):
    counts = kill_and_resume(killer, partial(stores, "sqlite"), tmp_path, 1000)
    assert counts["killed"] >= 900
