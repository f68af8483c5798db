"""The totals of all that a smart object has done: calls, answers, cost, savings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from smart_engine.amounts import usd
from smart_engine.batch.certificate import Certificate
from smart_engine.batch.self_agreement import SelfAgreement
from smart_engine.money.spending import Spend
from smart_engine.offline.estimate import Estimate
from smart_engine.report.evidence import comparisons, policies
from smart_engine.report.headline import headlines, summary
from smart_engine.report.notes import untried
from smart_engine.report.outlook import expectations
from smart_engine.report.words import escaped
from smart_engine.stream.state import StreamState

if TYPE_CHECKING:
    from rich.console import Group

    from smart_engine.report.charts import Picture
    from smart_engine.report.plots import Kind

__all__ = ["EarlierBatches", "Report"]


class EarlierBatches(BaseModel):
    """Sums over finished batches whose certificates are kept no longer.

    Attributes:
        batches: Number of them.
        valid: Those of them whose promise can be claimed.
        compared: Those of them whose cost by the reference alone is known.
        uncertified: Their items that the guarantee does not cover.
        cost: USD spent on them.
        reference_only_cost: USD that the reference alone would have cost (estimated),
            over those compared.
        paid: Model → USD spent on those compared.
        served: Model → items answered.
    """

    model_config = ConfigDict(frozen=True)

    batches: int = 0
    valid: int = 0
    compared: int = 0
    uncertified: int = 0
    cost: float = 0.0
    reference_only_cost: float = 0.0
    paid: dict[str, float] = {}
    served: dict[str, int] = {}

    @property
    def compared_cost(self) -> float:
        """USD spent on those compared."""
        return sum(self.paid.values())

    def plus(self, batch: Certificate) -> EarlierBatches:
        """Return the sums with one more batch."""
        alone, paid, served = batch.reference_only_cost, {**self.paid}, {**self.served}
        for name, count in batch.served.items():
            served[name] = served.get(name, 0) + count
        for name, spend in batch.spend.items() if alone is not None else ():
            paid[name] = paid.get(name, 0.0) + spend.cost
        return EarlierBatches(
            batches=self.batches + 1,
            valid=self.valid + batch.valid,
            compared=self.compared + (alone is not None),
            uncertified=self.uncertified + batch.uncertified,
            cost=self.cost + batch.cost,
            reference_only_cost=self.reference_only_cost + (alone or 0.0),
            paid=paid,
            served=served,
        )


class Report(BaseModel):
    """What was asked, paid and saved so far.

    Attributes:
        spend: Model → its calls and their cost, every call included; judges are named
            `judge: …`, embedding models `embedding: …`.
        served: Model → items answered by it, in finished batches and in streams.
        certificates: One per finished batch, in the order in which they ended; of a
            long-lived object, the last 1,000.
        earlier: Sums over the batches before those.
        streams: One per stream of single items: its present state.
        shadows: One per stream that ran in shadow mode: the state it would have. What
            it really cost is in `spend`.
        restored: USD of the batches' cost that was spent in earlier runs, on answers
            from a store.
        inside: If chains are compared (`spend` is then by chain): model → its calls
            inside the chains, and their cost.
        noise: How often the reference differs from itself, where that was measured.
        estimates: What jobs were estimated to save, the last one of each task.
    """

    model_config = ConfigDict(frozen=True)

    spend: dict[str, Spend]
    served: dict[str, int]
    certificates: tuple[Certificate, ...]
    streams: tuple[StreamState, ...] = ()
    shadows: tuple[StreamState, ...] = ()
    restored: float = 0.0
    inside: dict[str, Spend] = {}
    noise: tuple[SelfAgreement, ...] = ()
    estimates: tuple[Estimate, ...] = ()
    earlier: EarlierBatches = EarlierBatches()

    @property
    def cost(self) -> float:
        """USD spent by all models."""
        return sum(spend.cost for spend in self.spend.values())

    @property
    def estimated(self) -> float:
        """USD of the cost that is estimated, because models reported no usage."""
        return sum(spend.estimated for spend in self.spend.values())

    @property
    def unknown(self) -> float:
        """USD of the cost that failed calls are charged at most; see `Spend`."""
        return sum(spend.unknown for spend in self.spend.values())

    @property
    def saved(self) -> float:
        """USD saved against the reference alone (estimated), in batches and streams."""
        earlier = self.earlier.reference_only_cost - self.earlier.compared_cost
        return sum((record.saved or 0.0 for record in self.compared), earlier)

    @property
    def reference_only_cost(self) -> float | None:
        """USD that the reference alone would have cost (estimated).

        Covers all batches and streams in which it was paid; None if there are none.
        """
        parts = [record.reference_only_cost or 0.0 for record in self.compared]
        known = parts or self.earlier.compared
        return sum(parts, self.earlier.reference_only_cost) if known else None

    @property
    def compared_cost(self) -> float:
        """USD spent on what `reference_only_cost` covers; the difference is saved."""
        return sum((r.cost for r in self.compared), self.earlier.compared_cost)

    @property
    def batches(self) -> int:
        """Number of finished batches."""
        return self.earlier.batches + len(self.certificates)

    @property
    def not_compared(self) -> int:
        """Number of batches and streams in which the reference was never paid."""
        earlier = self.earlier.batches - self.earlier.compared
        return earlier + len(self.records) - len(self.compared)

    @property
    def records(self) -> tuple[Certificate | StreamState, ...]:
        """The certificates, then all streams."""
        return (*self.certificates, *self.streams)

    @property
    def compared(self) -> tuple[Certificate | StreamState, ...]:
        """The records whose cost by the reference alone is known."""
        return tuple(r for r in self.records if r.reference_only_cost is not None)

    def __str__(self) -> str:
        """Return the totals as plain text: what was saved first, the guarantee last."""
        width = max([5, *map(len, self.spend)])
        lines = [summary(self)]
        if served_by := policies(self):
            lines.append(f"policy: {served_by}")
        lines += [*comparisons(self), *untried(self)]
        head = f"{'model':<{width}}  {'calls':>8}  {'failed':>6}  {'served':>8}"
        lines.append(f"{head}  {'cost (USD)':>12}")
        lines += [
            f"{name:<{width}}  {spend.calls:>8,}  {spend.failures:>6,}  "
            f"{self.served.get(name, 0):>8,}  {usd(spend.cost):>12}"
            for name, spend in self.spend.items()
        ]
        items = sum(stream.answered for stream in self.streams)
        lines.append(
            f"cost {usd(self.cost)} USD, saved {usd(self.saved)} USD (estimated) "
            f"in {self.batches:,} batch{'' if self.batches == 1 else 'es'} "
            f"and {items:,} single item{'' if items == 1 else 's'}"
        )
        if self.estimated:
            lines.append(
                f"of the cost, {usd(self.estimated)} USD is estimated: models reported "
                "no usage"
            )
        if self.unknown:
            lines.append(
                f"of the cost, {usd(self.unknown)} USD is the worst case of failed "
                "calls that reported no usage"
            )
        if self.restored:
            lines.append(f"of the cost, {usd(self.restored)} USD is from earlier runs")
        lines += [
            f"inside, {name}: {usd(spend.cost)} USD in {spend.calls:,} calls"
            for name, spend in self.inside.items()
        ]
        lines += [
            f"in shadow mode, {shadow.task or 'stream'}: {usd(shadow.saved or 0.0)} "
            f"USD would have been saved (estimated) on {shadow.answered:,} items"
            for shadow in self.shadows
        ]
        lines += [str(noise) for noise in self.noise]
        lines += expectations(self)
        *_, guarantee = headlines(self)
        lines.append(f"guarantee: {guarantee.value}, {guarantee.note}")
        return "\n".join(map(escaped, lines))

    def to_html(self, path: str | Path | None = None) -> str:
        """Return the report as one self-contained HTML page.

        It fetches nothing, has no script, and follows the reader's light or dark theme.
        If the extra `plots` is installed, it has the pictures; as with `plot`, only one
        thread may draw at a time.

        Args:
            path: A file to write it to as well; what is there is written over.

        Example:
            ```python
            page = Report(spend={}, served={}, certificates=()).to_html()
            assert page.startswith("<!doctype html>")
            ```
        """
        from smart_engine.report.page import page

        return _written(page(self), path)

    def to_markdown(self, path: str | Path | None = None) -> str:
        """Return the report as GitHub-flavoured Markdown, without pictures.

        Args:
            path: See `to_html`.
        """
        from smart_engine.report.markdown import markdown

        return _written(markdown(self), path)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return all figures as JSON, totals first; `model_validate_json` reads it.

        Args:
            path: See `to_html`.
        """
        names = ("cost", "estimated", "unknown", "reference_only_cost", "saved")
        totals = {name: getattr(self, name) for name in names}
        dumped = totals | self.model_dump(mode="json")
        return _written(json.dumps(dumped, indent=2), path)

    def plot(self, kind: Kind = "cost", *, which: int = -1) -> Picture:
        """Draw one picture of the report; only one thread may draw at a time.

        Args:
            kind: "cost" (what was paid, beside the reference alone), "items" (which
                model answered what, by task), "evidence" (a batch's draws, and where
                they suffice), "stream" (the bound of undetected errors and the
                allowance, over time) or "outlook" (what jobs are expected to save, by
                their size).
            which: Index into `certificates` ("evidence"), `streams` ("stream") or
                `estimates` ("outlook"); the last by default.

        Returns:
            A matplotlib figure: `.savefig("cost.png")` saves it, and `.to_svg()`
            returns an SVG file that follows the reader's light or dark theme.

        Raises:
            InvalidInputError: If there is no such picture, or nothing to draw yet.
            MissingExtraError: If matplotlib is not installed (extra `plots`).

        Example:
            ```python
            from smart_engine import BatchSession, Outcome, Tier

            session = BatchSession(
                200,
                [Tier("big", role="reference"), Tier("small")],
                strategy="reference",
            )
            while calls := session.next_calls():
                for call in calls:
                    session.record(call, Outcome("yes", 1.0))
            done = session.certificate
            report = Report(spend=done.spend, served=done.served, certificates=(done,))
            assert report.plot("items").alt_text.endswith("big 100 %.")
            ```
        """
        from smart_engine.report.plots import plot_report

        return plot_report(self, kind, which)

    def _repr_html_(self) -> str:
        """Return the headline for a notebook."""
        from smart_engine.report.page import notebook

        return notebook(self)

    def __rich__(self) -> Group:
        """Return the whole report for a terminal."""
        from smart_engine.report.terminal import terminal

        return terminal(self)


def _written(text: str, path: str | Path | None) -> str:
    """Return a text, which is written to a file if there is one to write."""
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text
