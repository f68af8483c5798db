"""Engine time and memory of sessions whose answers are elsewhere: ten million items."""

from __future__ import annotations

import pytest
from alone import run_alone

# Runs alone in a process, so that its memory is the session's. Columns are made as
# workers would send them; the time that takes is not the engine's.
WORKER = """
import json, resource, sys, time
from collections import deque
import numpy as np
from smart_engine import BatchSession, Guarantee, Tier
from smart_engine.equivalence import Normalized
from smart_engine.equivalence.keys import ByKey, key_of
from smart_engine.money.ledger import LedgerEntries, LedgerScope
from smart_engine.money.pricing import TOKEN_KINDS
from smart_engine.runtime.blocks import Ended, drive_blocks
from smart_engine.serving.result_columns import COLUMNS

n_items, *agreements = json.loads(sys.argv[1])
rng = np.random.default_rng(1)
names = ["big", *(f"c{k}" for k in range(1, len(agreements) + 1))]
costs = dict(zip(names, [1.0, *(0.1 / 4**k for k in range(len(agreements)))]))
labels = [key_of(f"label {k}") for k in range(4)]
said = {"big": rng.integers(0, 4, n_items, dtype=np.int8)}
for name, agreement in zip(names[1:], agreements):
    said[name] = (said["big"] + (rng.random(n_items) >= agreement)) % 4


class Pool:
    workers, seconds = 2, 0.0

    def __init__(self):
        self.pieces = deque()

    def submit(self, piece):
        self.pieces.append(piece)

    def wait(self):
        began = time.process_time()
        piece = self.pieces.popleft()
        calls, n = list(piece.calls), len(piece.calls)
        columns = {name: [None] * n for name in COLUMNS}
        columns |= {
            "item": [item for item, _ in calls],
            "model": [name for _, name in calls],
            "key": [labels[said[name][item]] for item, name in calls],
            "cost": [costs[name] for _, name in calls],
            "began": [1e9] * n,
            "seconds": [0.5] * n,
        }
        columns |= {name: [False] * n for name in ("failed", "cached", "estimated")}
        columns |= {name: [12.0] * n for name in TOKEN_KINDS}
        self.seconds += time.process_time() - began
        return Ended(piece, columns)

    def worst_case(self, call):
        return None

    def stop(self):
        pass

    leave = stop


def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()


before, started, pool = resident(), time.process_time(), Pool()
session = BatchSession(
    n_items,
    [Tier("big", role="reference"), *map(Tier, names[1:])],
    Guarantee(0.05, 0.95),
    equivalence=ByKey(Normalized()),
    max_in_flight=32,
    scope=LedgerScope(LedgerEntries(), "big", "a task", 1),
    keep_answers=False,
)
drive_blocks(session, pool, 1024)
kept = resident() - before
certificate, handed_out = session.certificate, session.handed_out
assert certificate.valid
seconds = time.process_time() - started - pool.seconds
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
calls = sum(spend.calls for spend in certificate.spend.values())
print(json.dumps([seconds, before, kept, peak, calls]))
"""


@pytest.mark.bench
@pytest.mark.timeout(0)
def test_ten_million_items_take_minutes_and_sixty_bytes_each() -> None:
    """Three models; what does not grow with the batch is the ledger's newest rows."""
    shown = {}
    for n_items in (100_000, 1_000_000, 10_000_000):
        shown[n_items] = run_alone(WORKER, n_items, 0.99, 0.96)
        seconds, before, kept, peak, calls = shown[n_items]
        print(
            f"\n{n_items:>10,} items, {calls:>10,} calls: {seconds:6.1f} s engine, "
            f"{1e6 * seconds / calls:4.1f} µs a call; {kept / 1e6:4.0f} MB kept, peak "
            f"{peak / 1e6:5.0f} MB ({before / 1e6:.0f} MB before the session)",
            end="",
        )
    few, many = shown[100_000], shown[10_000_000]
    each = (many[2] - few[2]) / (10_000_000 - 100_000)
    print(f"\n{each:.0f} bytes an item, {many[0] / few[0]:.0f} times the time")
    assert many[0] <= 150
    assert many[0] <= 150 * few[0]
    assert many[3] <= 1.5e9
    assert each <= 60
