"""A recorded job by batch is the live one at half the price; the ledger is the bill."""

from __future__ import annotations

import pytest
from carried_jobs import carried

from smart_engine import Trace


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.05, 0.1])
def test_a_recorded_job_by_batch_is_the_live_one_at_half_the_price(share):
    job = carried(Trace.example(), 400, share)
    assert job.same
    assert job.billed
    assert job.batch == pytest.approx(job.live / 2)
    assert job.batches < job.requests / 20
