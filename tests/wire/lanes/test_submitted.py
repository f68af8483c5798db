"""A submitted batch: where it stands, how it is left, and who takes it up."""

from __future__ import annotations

import threading

import pytest
from batch_loopback import Plan, serve_batches
from lane_models import ITEMS, agreeing, assert_ledger_is_the_bill, smart_at

from smart_engine.runtime.submitted import LeftError


async def test_a_submitted_batch_is_awaited():
    with serve_batches(agreeing) as server:
        smart = smart_at(server)
        job = smart.submit(ITEMS)
        answers = await job
        assert [a.content for a in answers] == [a.content for a in job.results()]
        assert sum(a.content != "yes" for a in answers) <= 12
        status = job.status()
        assert (status.state, status.items, status.settled) == ("done", 60, 60)
        assert status.spent == pytest.approx(smart.report().cost)
        assert_ledger_is_the_bill(smart, server)


@pytest.mark.parametrize("lane", ["batch", "live"])
def test_a_batch_that_was_left_is_taken_up(lane, tmp_path, monkeypatch):
    seen, shown = threading.Event(), []

    def looked(api, name):
        seen.set()
        return look(api, name)

    def script(model, text, attempt):
        seen.set()
        return agreeing(model, text, attempt)

    with serve_batches(script, Plan(looks=("in_progress",) * 10_000)) as server:
        look = type(server.api).look
        monkeypatch.setattr(type(server.api), "look", looked)
        terms = {"strategy": "reference", "store": tmp_path / "answers.db"}
        terms |= {"lane": lane, "max_concurrency": 1}
        smart = smart_at(server, **terms)
        job = smart.submit(ITEMS)
        assert seen.wait(30)
        if lane == "batch":
            while not shown or "in_progress 0/60" not in shown[-1]:
                shown.append(job.status().batches)
        job.leave()
        assert job.status().state == "left"
        assert job.done
        with pytest.raises(LeftError, match="submit the same inputs") as caught:
            job.results()
        bought = server.requests.total()
        assert bought < 60
        if lane == "batch":
            assert "batch_0" in caught.value.__notes__[0]
            server.api.batches["batch_0"].looks.clear()
        again = smart_at(server, **terms)
        answers = again.submit(ITEMS).results(timeout=60)
        assert [a.content for a in answers] == ["yes"] * 60
        assert server.requests.total() + server.batched.requests.total() == 60
        assert set(server.attempts.values()) | set(
            server.batched.attempts.values()
        ) == {1}


def test_what_fails_is_raised_where_results_are_asked_for():
    with serve_batches(lambda model, text, attempt: "yes") as server:
        smart = smart_at(server, lane="live")
        job = smart.submit([3], model="big")
        with pytest.raises(ValueError, match="Invalid input type"):
            job.results()
        assert job.status().state == "failed"
        assert smart.submit(["item 1"], model="big").results()[0].content == "yes"
