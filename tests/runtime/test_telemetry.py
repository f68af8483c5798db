"""OpenTelemetry: metrics and events are what report and ledger say."""

from __future__ import annotations

import gc
import json
import re
import sys
from pathlib import Path

import pytest
from opentelemetry import _logs
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter as Exporter
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from langchain_smart import RecordedChatModel, SmartChatModel
from smart_engine import (
    Drift,
    MissingExtraError,
    Price,
    Trace,
    drift_event,
    observe,
)
from smart_engine.offline.traces import Row

DASHBOARD = Path(__file__).parents[2] / "examples" / "grafana_dashboard.json"


@pytest.fixture
def reader():
    return InMemoryMetricReader()


@pytest.fixture
def events(monkeypatch):
    provider, exporter = LoggerProvider(), Exporter()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    monkeypatch.setattr(_logs, "get_logger", provider.get_logger)
    return exporter


def collected(reader) -> dict:
    """Return metric → {attributes: value}."""
    found = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                found[metric.name] = {
                    tuple(sorted(point.attributes.items())): point.value
                    for point in metric.data.data_points
                }
    return found


def smart_model():
    rows = [
        Row(
            input=f"mail {n:03d}",
            answers={"big": "ham", "small": "spam" if n % 50 == 7 else "ham"},
            tokens={"big": (100, 1), "small": (100, 1)},
        )
        for n in range(150)
    ]
    trace = Trace(rows, "big", ["small"], {"big": Price(10, 10), "small": Price(1, 1)})
    models = {n: RecordedChatModel(trace=trace, model=n) for n in ("big", "small")}
    smart = SmartChatModel(
        reference=models["big"],
        candidates=[models["small"]],
        prices=trace.prices,
        max_disagreement=0.2,
        task="mails",
        promise="batch",
        seed=3,
    )
    return smart, [row.input for row in rows]


def test_metrics_are_what_report_and_ledger_say(reader, events):
    smart, mails = smart_model()
    observe(smart, MeterProvider([reader]))
    smart.batch(mails)
    smart.invoke(mails[0])
    report, ledger, found = smart.report(), smart.ledger(), collected(reader)
    assert sum(found["smart.cost"].values()) == pytest.approx(report.cost)
    assert sum(found["smart.calls"].values()) == len(ledger)
    for model, spend in ledger.sums("model").items():
        tokens = [
            value
            for key, value in found["smart.tokens"].items()
            if dict(key)["gen_ai.request.model"] == model
        ]
        assert sum(tokens) == spend.input_tokens + spend.output_tokens
    assert found["smart.answers"] == {
        (("gen_ai.request.model", name),): count
        for name, count in report.served.items()
    }
    task = (("smart.task", "mails"),)
    assert found["smart.saved"][task] == pytest.approx(report.saved)
    assert found["smart.audits"][task] > 0
    assert found["smart.bound"][task] <= found["smart.allowance"][task]


def test_each_batch_that_ends_is_one_event(reader, events):
    smart, mails = smart_model()
    observe(smart, MeterProvider([reader]))
    for _ in range(2):
        smart.batch(mails)
        collected(reader)
        collected(reader)
    told = [log.log_record for log in events.get_finished_logs()]
    assert [log.event_name for log in told] == ["gen_ai.evaluation.result"] * 2
    ids = [log.attributes["smart.certificate"] for log in told]
    assert ids == [record.id for record in smart.report().certificates]
    assert told[0].attributes["gen_ai.evaluation.score.label"] == "valid"
    assert not any("mail 0" in str(log.attributes) for log in told)


def test_an_alarm_is_an_event(events):
    drift_event(Drift("mails", "small", 400, 4, 50, 10))
    (log,) = events.get_finished_logs()
    assert log.log_record.event_name == "smart.drift"
    assert log.log_record.attributes["smart.errors_since"] == 10
    assert log.log_record.severity_text == "WARN"


def test_a_model_that_is_gone_reports_nothing(reader, events):
    smart, mails = smart_model()
    observe(smart, MeterProvider([reader]))
    smart.invoke(mails[0])
    assert collected(reader)["smart.calls"]
    del smart
    gc.collect()
    assert not any(collected(reader).values())


def test_without_the_api_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    with pytest.raises(MissingExtraError, match="otel"):
        observe(smart_model()[0])


def test_the_dashboard_asks_for_metrics_that_there_are(reader, events):
    smart, mails = smart_model()
    observe(smart, MeterProvider([reader]))
    smart.batch(mails)
    names = {name.replace(".", "_") for name in collected(reader)}
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    asked = " ".join(each["expr"] for panel in panels for each in panel["targets"])
    words = set(re.findall(r"smart_[a-z_]+", asked))
    wanted = {
        word for word in words if not word.startswith(("smart_task", "smart_role"))
    }
    assert {
        word.removesuffix("_total").removesuffix("_USD") for word in wanted
    } <= names
    assert len(panels) >= 6
