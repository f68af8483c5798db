"""`smart_dataset` beside the same calls in a plain `map_batches`."""

from __future__ import annotations

import resource
import time

import pytest
import ray
from instant import ByHand, smart

from langchain_smart import smart_dataset

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.mark.bench
@pytest.mark.timeout(0)
@pytest.mark.parametrize("rows", [20_000, 100_000, 1_000_000])
def test_a_data_set_takes_at_most_twice_as_long_as_its_calls(rows):
    blocks = max(4, rows // 25_000)
    numbers = ray.data.range(rows, override_num_blocks=blocks)
    ds = numbers.rename_columns({"id": "n"}).materialize()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, used = time.perf_counter(), time.process_time()
    done = smart_dataset(ds, smart=smart, prompt="Sort item {n}", concurrency=2)
    ours, used = time.perf_counter() - began, time.process_time() - used
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    asked = {name: spend.calls for name, spend in done.report.spend.items()}
    small = ds.add_column("model", lambda batch: ["small"] * len(batch))
    big = ds.limit(asked["big"]).add_column("model", lambda batch: ["big"] * len(batch))
    same = small.union(big).materialize()
    assert same.count() == pytest.approx(sum(asked.values()), rel=0.01)
    began = time.perf_counter()
    same.map_batches(
        ByHand, batch_size=1024, compute=ray.data.ActorPoolStrategy(size=2)
    ).materialize()
    theirs = time.perf_counter() - began
    print(
        f"\n{rows:,} rows, {sum(asked.values()):,} calls: {ours:.1f} s, of which the "
        f"driver computes {used:.1f}; by hand {theirs:.1f} s: {ours / theirs:.2f} "
        f"times; the driver's peak grew from {before // 1024} to {after // 1024} MB"
    )
    assert done.certificate.valid
    assert ours <= 2 * theirs
