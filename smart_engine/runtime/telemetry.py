"""OpenTelemetry: what a smart object's report and ledger say, as metrics and events.

Nothing is counted here: whenever a reader collects, report and ledger are read.
Only OpenTelemetry's API is used, and imported when it is needed; which SDK and exporter
there are is the application's choice. Attributes are those of the semantic conventions
for generative AI, where these have one.

| metric | unit | by |
|---|---|---|
| `smart.calls`, `smart.cost` | calls, USD | task, model, role, outcome |
| `smart.tokens` | tokens | the same, and `gen_ai.token.type` |
| `smart.answers` | answers handed out | model |
| `smart.saved`, `smart.reference_only_cost` | USD | task |
| `smart.audits`, `smart.disagreements` | audits, errors that they detected | task |
| `smart.bound`, `smart.allowance` | differing answers: at most, and allowed | task |

Events: `gen_ai.evaluation.result` for each batch that has ended, named
`smart.certificate`, and `smart.drift`, for a model with `on_drift=drift_event`.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from smart_engine.batch.certificate import Certificate
from smart_engine.errors import MissingExtraError
from smart_engine.money.ledger import Ledger
from smart_engine.report.report import Report
from smart_engine.stream.drift import Drift

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider, Observation

__all__ = ["Observed", "drift_event", "observe"]

_NAME = "smart_llm"

_Point = tuple[float, dict[str, Any]]
"""A value and its attributes."""


class Observed(Protocol):
    """A smart model, LLM, runnable or middleware."""

    def report(self) -> Report:
        """Return what was asked, paid and saved so far."""

    def ledger(self) -> Ledger:
        """Return every call so far."""


def observe(smart: Observed, meter_provider: MeterProvider | None = None) -> None:
    """Report a smart object's figures to OpenTelemetry from now on.

    Args:
        smart: The object; one is enough of several that share their `books`. It is
            observed as long as it is in use.
        meter_provider: Where the metrics go; the global one if not given.

    Raises:
        MissingExtraError: If OpenTelemetry's API is not installed.

    Example:
        ```python
        class Quiet:
            def report(self):
                return Report(spend={}, served={}, certificates=())

            def ledger(self):
                return LedgerEntries().ledger()


        from smart_engine.money.ledger import LedgerEntries

        observe(Quiet())
        ```
    """
    try:
        from opentelemetry.metrics import Observation, get_meter
    except ModuleNotFoundError as error:
        raise MissingExtraError("otel", "observing a model") from error
    meter = get_meter(_NAME, meter_provider=meter_provider)
    watched, ended = weakref.ref(smart), [0]

    def points(read: Callable[[Any], Iterator[_Point]]) -> Callable[[Any], Any]:
        def collect(_: Any) -> Iterator[Observation]:
            alive = watched()
            if alive is not None:
                for value, attributes in read(alive):
                    yield Observation(value, attributes)

        return collect

    def certified(each: Observed) -> Iterator[_Point]:
        report = each.report()
        yield from _answers(report)  # first: what logs events may raise
        while ended[0] < report.batches:  # those that a report keeps no more are old
            ended[0] += 1
            kept = ended[0] - report.earlier.batches
            if kept > 0:
                event = _evaluation(report.certificates[kept - 1])
                _emit("gen_ai.evaluation.result", event)

    counter, gauge = meter.create_observable_counter, meter.create_observable_gauge
    counter("smart.calls", [points(_calls)], "{call}", "Calls of all models")
    counter("smart.cost", [points(_costs)], "{USD}", "What these calls cost")
    counter("smart.tokens", [points(_tokens)], "{token}", "What these calls used")
    counter("smart.answers", [points(certified)], "{answer}", "Answers handed out")
    for name, unit, about in _GAUGES:
        gauge(f"smart.{name}", [points(_gauge(name))], unit, about)


def drift_event(drift: Drift) -> None:
    """Emit an alarm as an event: give it to a model as `on_drift=drift_event`.

    Example:
        ```python
        drift_event(Drift("mails", "small", 400, 4, 50, 10))
        ```
    """
    attributes = {f"smart.{name}": value for name, value in drift._asdict().items()}
    named = {key: value for key, value in attributes.items() if value is not None}
    _emit("smart.drift", named, str(drift), warning=True)


_GAUGES = (
    ("saved", "{USD}", "What the reference alone would have cost more (estimated)"),
    ("reference_only_cost", "{USD}", "What the reference alone would have cost"),
    ("audits", "{audit}", "Answers that were compared with the reference's"),
    ("disagreements", "{answer}", "Errors that audits have detected"),
    ("bound", "{answer}", "Differing answers, at most, at the stated confidence"),
    ("allowance", "{answer}", "Differing answers that the guarantee allows"),
)
"""Name, unit and description of each gauge; all are by task."""


def _calls(smart: Observed) -> Iterator[_Point]:
    for attributes, spend in _spends(smart):
        yield spend.calls, attributes


def _costs(smart: Observed) -> Iterator[_Point]:
    for attributes, spend in _spends(smart):
        yield spend.cost, attributes


def _tokens(smart: Observed) -> Iterator[_Point]:
    for attributes, spend in _spends(smart):
        yield spend.input_tokens, attributes | {"gen_ai.token.type": "input"}
        yield spend.output_tokens, attributes | {"gen_ai.token.type": "output"}


def _spends(smart: Observed) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield the sums of the ledger; runs within chains are in those of the chains."""
    for key, spend in smart.ledger().keyed.items():
        if key.role != "inside":
            yield (
                {
                    "gen_ai.operation.name": "chat",
                    "gen_ai.request.model": key.model,
                    "smart.task": key.task,
                    "smart.role": key.role,
                    "smart.outcome": key.outcome,
                },
                spend,
            )


def _answers(report: Report) -> Iterator[_Point]:
    for model, count in report.served.items():
        yield count, {"gen_ai.request.model": model}


def _gauge(name: str) -> Callable[[Observed], Iterator[_Point]]:
    """Return what reads one of the gauges, task by task."""

    def read(smart: Observed) -> Iterator[_Point]:
        for task, figures in _by_task(smart.report()).items():
            if name in figures:
                yield figures[name], {"smart.task": task}

    return read


def _by_task(report: Report) -> dict[str, dict[str, float]]:
    """Return task → its figures, over the batches and streams that a report keeps.

    Bound and allowance of a task are those of its streams and of what its jobs promise
    together; those of its latest batch where it has neither.
    """
    tasks: dict[str, dict[str, float]] = {}
    for record in report.records:
        figures = tasks.setdefault(record.task or "", defaultdict(float))
        if record.reference_only_cost is not None:
            figures["saved"] += record.saved or 0.0
            figures["reference_only_cost"] += record.reference_only_cost
        if not isinstance(record, Certificate):
            figures["audits"] += record.audits
            figures["disagreements"] += record.found
            figures["bound"] = record.possible_misses
            figures["allowance"] = record.allowed
            continue
        figures["audits"] += sum(test.draws for test in record.tests)
        figures["disagreements"] += sum(len(test.errors) for test in record.tests)
        if record.promise is not None:
            figures["bound"] = record.promise.possible
            figures["allowance"] = record.promise.allowed
        elif record.valid:
            figures["bound"] = figures["allowance"] = record.max_errors
    return tasks


def _evaluation(record: Certificate) -> dict[str, Any]:
    """Return what the event of a batch that has ended says."""
    return {
        "gen_ai.evaluation.name": "smart.certificate",
        "gen_ai.evaluation.score.label": "valid" if record.valid else "not valid",
        "gen_ai.evaluation.explanation": record.claim,
        "gen_ai.request.model": record.reference,
        "smart.task": record.task or "",
        "smart.certificate": record.id,
        "smart.items": record.items,
        "smart.cost": record.cost,
        "smart.saved": record.saved or 0.0,
    }


def _emit(
    name: str, attributes: dict[str, Any], body: str = "", *, warning: bool = False
) -> None:
    """Emit an event: a log record that has a name."""
    try:
        from opentelemetry._logs import LogRecord, SeverityNumber, get_logger
    except ModuleNotFoundError as error:
        raise MissingExtraError("otel", "events") from error
    severity = SeverityNumber.WARN if warning else SeverityNumber.INFO
    record = LogRecord(
        event_name=name,
        attributes=attributes,
        body=body or name,
        severity_number=severity,
        severity_text=severity.name,
    )
    get_logger(_NAME).emit(record)
