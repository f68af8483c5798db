"""Batches that a key is not shown: nothing is bought twice without a word."""

from __future__ import annotations

import os
import signal

import pytest
from anthropic_loopback import serve_anthropic
from batch_loopback import Plan, serve_batches
from lane_models import ITEMS, PRICES, agreeing, assert_ledger_is_the_bill, smart_at
from langchain_anthropic import ChatAnthropic
from loopback import Reply

from langchain_smart import SmartChatModel
from smart_engine.runtime.lanes.dispatcher import LaneError

runner = pytest.importorskip("typer.testing").CliRunner()

from smart_engine.cli.app import app  # noqa: E402
from smart_engine.cli.terminal import Code  # noqa: E402


def left_behind(server, folder, monkeypatch, *, confirmed=True):
    """Submit a batch whose job ends at once; return how to take it up."""

    def interrupt(api, *args):
        os.kill(os.getpid(), signal.SIGINT)
        return act(api, *args)  # it is done all the same

    kind = type(server.api)
    name, act = ("look", kind.look) if confirmed else ("create", kind.create)

    def unconfirmed(api, asked):
        interrupt(api, asked)
        return Reply([], fault="reset")

    def again(key="none"):
        own = {"api_key": key, "max_tokens": 50}
        terms = {"strategy": "reference", "store": folder / "answers.db"}
        if "/v1" in server.url:
            return smart_at(server, own, **terms)
        own["base_url"] = server.url
        big, small = (ChatAnthropic(model=name, **own) for name in PRICES)
        terms |= {"seed": 5, "lane": "batch", "prices": PRICES, "max_rounds": 6}
        return SmartChatModel(reference=big, candidates=[small], **terms)

    with monkeypatch.context() as patch:
        patch.setattr(kind, name, interrupt if confirmed else unconfirmed)
        with pytest.raises(KeyboardInterrupt):
            again().batch(ITEMS)
    assert len(server.api.batches) == 1
    return again


@pytest.mark.parametrize(
    ("serve", "confirmed"), [(serve_batches, True), (serve_anthropic, False)]
)
def test_another_projects_key_buys_nothing_twice(
    confirmed, serve, tmp_path, monkeypatch
):
    with serve(agreeing) as server:
        again = left_behind(server, tmp_path, monkeypatch, confirmed=confirmed)
        told = r"this key no batch ((msg)?batch_0|smart-\w+) of big, which job"
        with pytest.raises(LaneError, match=told) as stopped:
            again("another").batch(ITEMS)
        assert "--forget" in str(stopped.value)
        assert len(server.api.batches) == 1
        smart = again()
        assert [a.content for a in smart.batch(ITEMS)] == ["yes"] * 60
        assert set(server.batched.attempts.values()) == {1}
        assert_ledger_is_the_bill(smart, server)


@pytest.mark.parametrize("serve", [serve_batches, serve_anthropic])
def test_a_batch_that_was_deleted_between_two_processes_is_bought_anew(
    serve, tmp_path, monkeypatch
):
    with serve(agreeing, Plan(deleted=frozenset({0}))) as server:
        again = left_behind(server, tmp_path, monkeypatch)
        smart = again()
        with pytest.warns(
            UserWarning, match=r"no longer has the batch (msg)?batch_0 of"
        ):
            answers = smart.batch(ITEMS)
        assert [a.content for a in answers] == ["yes"] * 60
        assert smart.report().spend["big"].unknown > 0


def test_a_forgotten_batch_is_bought_anew_with_another_key(tmp_path, monkeypatch):
    cancel = ["cancel", str(tmp_path / "answers.db")]
    with serve_batches(agreeing) as server:
        again = left_behind(server, tmp_path, monkeypatch)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        assert runner.invoke(app, [*cancel, "--forget"]).exit_code == Code.UNUSABLE
        runner.invoke(app, [*cancel, "batch_0", "--forget"])  # it is shown: cancelled
        monkeypatch.setenv("OPENAI_API_KEY", "another")
        with pytest.raises(LaneError):
            again("another").batch(ITEMS)
        done = runner.invoke(app, [*cancel, "batch_0", "--forget"])
        assert "batch_0: forgotten" in done.stdout
        answers = again("another").batch(ITEMS)
        assert [a.content for a in answers] == ["yes"] * 60
        assert len(server.api.batches) == 2
