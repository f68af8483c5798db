"""Jobs killed while their batches are under way: no request is bought twice, or lost.

A job is killed at a chosen request to the provider: before the provider works on it,
after that but before the reply, or a moment later, while the job is at something else.
`make verify` makes hundreds of such kills; the default tests a few.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Any

import pytest
from batch_loopback import BatchServer, serve_batches
from killed_jobs import LANES

JOBS = Path(__file__).parents[2] / "killed_jobs.py"
MOMENTS = ("before", "after", "later")


@dataclass
class Trap:
    """Holds a certain request to the provider until the job is dead."""

    at: int | None = None
    moment: str = "before"
    seen: int = 0
    sprung: Event = field(default_factory=Event)
    dead: Event = field(default_factory=Event)
    calls: list[str] = field(default_factory=list)
    lock: Any = field(default_factory=Lock)

    def set(self, at: int | None, moment: str) -> None:
        self.at, self.moment, self.seen = at, moment, 0
        self.sprung.clear()
        self.dead.clear()
        self.calls.clear()

    def __call__(self, call: str, done: bool) -> None:
        with self.lock:
            if not done:
                self.seen += 1
                self.calls.append(call)
            here = self.seen == self.at and done == (self.moment != "before")
            fresh = here and not self.sprung.is_set()
        if fresh:
            self.sprung.set()
            if self.moment != "later":
                self.dead.wait(30)


def agreeing(model: str, text: str, attempt: int) -> str:
    number = int(text.split()[1])
    return "no" if model == "small" and number % 13 == 0 else f"yes {number % 3}"


@dataclass
class Killer:
    """Runs jobs in processes of their own, and kills them."""

    server: BatchServer
    trap: Trap
    nursery: subprocess.Popen[str]

    def run(
        self,
        kind: str,
        store: str,
        file: Path,
        at: int | None = None,
        moment: str = "before",
        wait: float = 0.0,
    ) -> bool:
        """Run a job; kill it at a request, if one is named. Was it killed?"""
        self.trap.set(at, moment)
        file.unlink(missing_ok=True)
        assert self.nursery.stdin
        assert self.nursery.stdout
        self.nursery.stdin.write(f"{kind} {store} 3 {file}\n")
        self.nursery.stdin.flush()
        job = int(self.nursery.stdout.readline())
        if at is not None:
            while not self.trap.sprung.wait(0.02) and not file.exists():
                pass  # it may need fewer requests
            if moment == "later":
                time.sleep(wait)
            with suppress(ProcessLookupError):  # it may have ended meanwhile
                os.kill(job, signal.SIGKILL)
        code = int(self.nursery.stdout.readline())
        self.trap.dead.set()
        assert code in (0, -signal.SIGKILL)
        return code != 0


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    trap = Trap()
    with serve_batches(agreeing) as server:
        server.api.on_call = trap
        command = [sys.executable, str(JOBS), server.url, *LANES]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **pipes) as nursery:
            assert nursery.stdout.readline() == "warm\n"
            yield Killer(server, trap, nursery)
            nursery.stdin.close()
            nursery.wait(20)


def kill_and_resume(killer: Killer, stores: Any, folder: Path, runs: int) -> None:
    """Kill that many jobs, some of them twice, and let each end."""
    file, rng = folder / "record.json", random.Random(11)
    whole: dict[str, tuple[dict[str, Any], int, list[str]]] = {}
    counts: Counter[str] = Counter()
    for number in range(runs):
        kind = list(LANES)[number % len(LANES)]
        if kind not in whole:
            killer.server.batched.attempts.clear()
            assert not killer.run(kind, stores(), file)
            bought = killer.server.batched.attempts.total()
            calls = list(killer.trap.calls)
            whole[kind] = json.loads(file.read_text()), bought, calls
        expected, bought, calls = whole[kind]
        store = stores()
        killer.server.batched.attempts.clear()
        for kills in range(rng.choice([1, 1, 2])):
            most = len(calls) // (1 + kills)
            at, moment = rng.randint(1, most), rng.choice(MOMENTS)
            wait = rng.random() * 0.03
            killed = killer.run(kind, store, file, at, moment, wait)
            counts["kills" if killed else "ended before"] += 1
            if killed and killer.trap.sprung.is_set():
                where = killer.trap.calls[at - 1].replace("/v1/", "").split("/")[0]
                counts[f"killed {moment} {where}"] += 1
        assert not killer.run(kind, store, file)
        record = json.loads(file.read_text())
        attempts = killer.server.batched.attempts
        counts["bought twice"] += sum(n > 1 for n in attempts.values())
        counts["lost"] += bought - len(attempts)
        assert set(attempts.values()) == {1}
        assert attempts.total() == bought
        assert record["answers"] == expected["answers"]
        assert record["certificate"] == expected["certificate"]
        assert not killer.server.requests
        if (number + 1) % 50 == 0 or number + 1 == runs:
            told = "\n".join(f"{n:7,}  {name}" for name, n in sorted(counts.items()))
            print(f"\n{number + 1:7,}  jobs\n{told}", flush=True)
    assert counts["kills"] >= runs / 2


@pytest.mark.parametrize(
    ("kind", "runs"),
    [
        ("sqlite", 4),
        pytest.param("sqlite", 30, marks=pytest.mark.slow),
        pytest.param("postgres", 6, marks=pytest.mark.slow),
    ],
)
def test_killed_batches_are_taken_up(kind, runs, killer, stores, tmp_path):
    kill_and_resume(killer, partial(stores, kind), tmp_path, runs)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(9000)
def test_hundreds_of_killed_batches_are_taken_up(killer, stores, tmp_path):
    kill_and_resume(killer, partial(stores, "sqlite"), tmp_path, 300)
