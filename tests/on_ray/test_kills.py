"""Actors and drivers are killed at random moments: nothing is lost or bought twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
import ray
from rows import made, smart

from langchain_smart.parts import Parts
from smart_engine import Certificate

ITEMS = 300
JOB = Path(__file__).with_name("job.py")
pytestmark = pytest.mark.usefixtures("cluster")


class Killed:
    """A job whose processes are killed, until it has ended.

    Attributes:
        kills: What was killed so far.
        again: Calls that were in flight in a process that was killed.
        shown: What the job printed in the end.
    """

    def __init__(self, folder, draw):
        self.calls, self.output, self.draw = folder / "calls", folder / "job", draw
        self.calls.mkdir(parents=True)
        self.kills, self.again = Counter(), set()
        self.stored, self.shown = [], None

    def run(self, most):
        """Run it, with so many kills at most."""
        while self.shown is None:
            command = [sys.executable, str(JOB), ray.get_runtime_context().gcs_address]
            command += [str(self.calls), str(self.output), str(ITEMS)]
            driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            with driver:
                while driver.poll() is None and self.kills.total() < most:
                    self._kill_somebody(driver)
                said, _ = driver.communicate(timeout=300)
            if driver.returncode == 0:
                self.shown = json.loads(said.splitlines()[-1])
            else:
                assert driver.returncode == -signal.SIGKILL

    def _kill_somebody(self, driver):
        enough = len(made(self.calls)) + self.draw.randrange(1, 60)
        while len(made(self.calls)) < enough:
            if driver.poll() is not None:
                return
            time.sleep(0.005)
        workers = {path.name for path in self.calls.iterdir()}
        living = [pid for pid in workers if Path("/proc", pid).exists()]
        if living and self.draw.random() < 0.5:
            kind, lost = "actor", [self.draw.choice(living)]
            killed = int(lost[0])
        else:
            kind, lost, killed = "driver", living, driver.pid
        with suppress(ProcessLookupError):
            os.kill(killed, signal.SIGKILL)
            self.kills[kind] += 1
        if kind == "driver":
            driver.wait()
        # What is stored now may not be bought from now on.
        stored = self.in_parts()
        self.stored.append((stored, Counter(made(self.calls))))
        if kind == "driver":  # its actors end a little later, with what they are at
            deadline = time.monotonic() + 60
            while any(Path("/proc", pid).exists() for pid in living):
                assert time.monotonic() < deadline
                time.sleep(0.02)
        for process in lost:
            self.again |= set(made(self.calls, process)) - stored

    def in_parts(self):
        """Return the calls whose answers are stored."""
        if not (self.output / "parts").exists():
            return set()
        parts, found = Parts(str(self.output)), set()
        for _, calls in parts.calls():
            items, names = calls["item"].to_pylist(), calls["model"].to_pylist()
            found |= set(zip(items, names, strict=True))
        return found

    def check(self, rows, certificate):
        """Nothing is lost, and nothing was bought twice but what was in flight."""
        ended = Certificate.model_validate_json(self.shown[0])
        assert ended.served == certificate.served
        assert ended.tests == certificate.tests
        assert ended.valid
        shown = [(row["n"], row["answer"], row["model"]) for row in self.shown[1]]
        assert shown == rows
        assert not any(row["error"] for row in self.shown[1])
        bought = Counter(made(self.calls))
        twice = {call for call, times in bought.items() if times > 1}
        assert twice <= self.again
        for stored, before in self.stored:
            assert not stored & set(bought - before)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "kills",
    [
        2,
        pytest.param(50, marks=[pytest.mark.slow, pytest.mark.long], id="50 kills"),
    ],
)
def test_whatever_process_is_killed_nothing_is_lost_or_bought_twice(tmp_path, kills):
    one = smart(min_saving=0.0)
    answers = one.batch([f"Sort item {item}" for item in range(ITEMS)])
    marks = [message.response_metadata["smart"]["model"] for message in answers]
    texts = [message.text for message in answers]
    rows = list(zip(range(ITEMS), texts, marks, strict=True))
    (certificate,) = one.report().certificates
    total, number, draw = Counter(), 0, random.Random(kills)
    calls = twice = 0
    while total.total() < kills:
        job = Killed(tmp_path / str(number), draw)
        job.run(min(6, kills - total.total()))
        job.check(rows, certificate)
        bought = Counter(made(job.calls))
        calls += len(bought)
        twice += bought.total() - len(bought)
        total += job.kills
        number += 1
    print(
        f"\n{dict(total)} killed in {number} jobs of {ITEMS} rows: {calls} calls were "
        f"needed, {twice} were made again, all of which had been in flight"
    )
