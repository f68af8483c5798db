"""The decisions of SMART: profiling, guarantees and model mixes, without any I/O.

Names load when they are first used, so that `import smart_engine` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smart_engine.batch.certificate import AuditTest, Certificate, Evidence
    from smart_engine.batch.progress import Progress
    from smart_engine.batch.self_agreement import NoisyReferenceError, SelfAgreement
    from smart_engine.batch.session import BatchSession
    from smart_engine.batch.verification import verify
    from smart_engine.calls import Call, Failure, Outcome, Served
    from smart_engine.equivalence import (
        Date,
        Equivalence,
        Exact,
        Items,
        Json,
        Judge,
        Judged,
        Label,
        Normalized,
        Number,
        Rule,
        Similar,
        agree,
    )
    from smart_engine.errors import (
        BudgetExceededError,
        InvalidInputError,
        MissingExtraError,
        ProtocolError,
        SmartError,
        StoreError,
        UnparseableAnswerError,
    )
    from smart_engine.guarantee import Guarantee
    from smart_engine.money.ledger import Entry, Ledger
    from smart_engine.money.pricing import Price, Usage
    from smart_engine.money.spending import Spend
    from smart_engine.offline.replay import replay
    from smart_engine.offline.traces import Trace
    from smart_engine.report.plots import plot_costs
    from smart_engine.report.report import Report
    from smart_engine.store.store import Store
    from smart_engine.stream.session import StreamSession
    from smart_engine.stream.state import StreamPoint, StreamState
    from smart_engine.tiers import Tier

_HOME = {
    "AuditTest": "batch.certificate",
    "BatchSession": "batch.session",
    "BudgetExceededError": "errors",
    "Call": "calls",
    "Certificate": "batch.certificate",
    "Date": "equivalence",
    "Drift": "stream.drift",
    "Entry": "money.ledger",
    "Equivalence": "equivalence",
    "Evidence": "batch.certificate",
    "Exact": "equivalence",
    "Failure": "calls",
    "Guarantee": "guarantee",
    "InvalidInputError": "errors",
    "Items": "equivalence",
    "Json": "equivalence",
    "Judge": "equivalence",
    "Judged": "equivalence",
    "Label": "equivalence",
    "Ledger": "money.ledger",
    "MissingExtraError": "errors",
    "NoisyReferenceError": "batch.self_agreement",
    "Normalized": "equivalence",
    "Number": "equivalence",
    "Outcome": "calls",
    "Price": "money.pricing",
    "Progress": "batch.progress",
    "ProtocolError": "errors",
    "Report": "report.report",
    "Rule": "equivalence",
    "SelfAgreement": "batch.self_agreement",
    "Served": "calls",
    "Similar": "equivalence",
    "SmartError": "errors",
    "Spend": "money.spending",
    "Store": "store.store",
    "StoreError": "errors",
    "StreamPoint": "stream.state",
    "StreamSession": "stream.session",
    "StreamState": "stream.state",
    "Tier": "tiers",
    "Trace": "offline.traces",
    "UnparseableAnswerError": "errors",
    "Usage": "money.pricing",
    "agree": "equivalence",
    "drift_event": "runtime.telemetry",
    "observe": "runtime.telemetry",
    "plot_costs": "report.plots",
    "plot_savings": "report.plots",
    "replay": "offline.replay",
    "savings": "offline.replay",
    "verify": "batch.verification",
}

__all__ = [
    "AuditTest",
    "BatchSession",
    "BudgetExceededError",
    "Call",
    "Certificate",
    "Date",
    "Drift",
    "Entry",
    "Equivalence",
    "Evidence",
    "Exact",
    "Failure",
    "Guarantee",
    "InvalidInputError",
    "Items",
    "Json",
    "Judge",
    "Judged",
    "Label",
    "Ledger",
    "MissingExtraError",
    "NoisyReferenceError",
    "Normalized",
    "Number",
    "Outcome",
    "Price",
    "Progress",
    "ProtocolError",
    "Report",
    "Rule",
    "SelfAgreement",
    "Served",
    "Similar",
    "SmartError",
    "Spend",
    "Store",
    "StoreError",
    "StreamPoint",
    "StreamSession",
    "StreamState",
    "Tier",
    "Trace",
    "UnparseableAnswerError",
    "Usage",
    "agree",
    "drift_event",
    "observe",
    "plot_costs",
    "plot_savings",
    "replay",
    "savings",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Load a public name from the file that defines it (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'smart_engine' has no attribute {name!r}")
    return getattr(import_module(f"smart_engine.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
