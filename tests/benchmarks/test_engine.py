"""Engine time and memory of whole sessions, up to a million items."""

from __future__ import annotations

import pytest
from alone import run_alone

# Runs alone in a process, so that its peak memory is the session's.
WORKER = """
import json, random, resource, sys, time
from smart_engine import BatchSession, Guarantee, Outcome, Tier

n_items, strategy, looks, *agreements = json.loads(sys.argv[1])
dice = random.Random(1)
names = ["big", *(f"c{k}" for k in range(1, len(agreements) + 1))]
costs = [1.0, *(0.01 * 2**k for k in range(len(agreements)))]
truth = bytes(dice.choices((0, 1), k=n_items))
outcomes, said = {}, {"big": truth}
for name, cost in zip(names, costs):
    outcomes[name] = (Outcome("yes", cost), Outcome("no", cost))
for name, agreement in zip(names[1:], agreements):
    said[name] = column = bytearray(truth)
    for item in dice.sample(range(n_items), round((1 - agreement) * n_items)):
        column[item] ^= 1

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.process_time()
session = BatchSession(
    n_items,
    [Tier("big", role="reference"), *map(Tier, names[1:])],
    Guarantee(0.05, 0.95),
    strategy=strategy,
    looks=looks,
)
while calls := session.next_calls():
    for call in calls:
        session.record(call, outcomes[call.tier][said[call.tier][call.item]])
certificate = session.certificate
answers = session.answers
seconds = time.process_time() - started
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
calls = sum(spend.calls for spend in certificate.spend.values())
print(json.dumps([seconds, before / 1024, after / 1024, calls]))
"""
CELLS = [
    ("audit", "corrected", 0.99, 0.96, 0.7),
    ("audit", "corrected", 0.93, 0.93, 0.93),
    ("mix", "corrected", 0.99, 0.96, 0.7),
    ("mix", "paper", 0.99, 0.96, 0.7),
    ("exhaustive", "corrected", 0.95, 0.95, 0.95),
    ("exhaustive", "paper", 0.95, 0.95, 0.95),
]


@pytest.mark.bench
@pytest.mark.timeout(0)
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: "-".join(cell[:2]))
def test_a_million_items_take_seconds_and_less_than_a_gigabyte(cell) -> None:
    seconds = {}
    for n_items in (10_000, 100_000, 1_000_000):
        seconds[n_items], before, peak, calls = run_alone(WORKER, n_items, *cell)
        print(
            f"\n{cell[0]:<10} {cell[1]:<9} {n_items:>9,} items, {calls:>9,} calls: "
            f"{seconds[n_items]:6.2f} s engine, peak {peak:5.0f} MB "
            f"({before:.0f} MB before the session)",
            end="",
        )
    print()
    if cell[0] == "audit":
        assert seconds[100_000] < 2
        assert seconds[1_000_000] < 20
    assert seconds[1_000_000] < 30
    assert peak < 1000
    assert seconds[1_000_000] < 15 * seconds[100_000]
