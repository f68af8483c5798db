"""Totals over everything one smart model has done: what it cost, what it saved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict

from smart_engine.certificate import Certificate, Spend
from smart_engine.stream.state import StreamState

__all__ = ["Ledger", "Report"]


class Report(BaseModel):
    """What was asked, paid and saved so far.

    Attributes:
        spend: Model → what it was asked and what it cost, every call included; judges
            as `judge: …`.
        served: Model → items answered by it, in finished batches and in streams.
        certificates: One per finished batch, in the order in which they ended.
        streams: One per stream of single items: where it stands.
        shadows: One per stream that was only tried beside the reference: where it would
            stand. What was really spent on it is in `spend`.
        restored: USD of what batches spent that was paid in earlier runs, for answers
            taken from a store.
        inside: Where chains are compared, whose spend is told by chain: model → what it
            was asked inside them, and what that cost.
    """

    model_config = ConfigDict(frozen=True)

    spend: dict[str, Spend]
    served: dict[str, int]
    certificates: tuple[Certificate, ...]
    streams: tuple[StreamState, ...] = ()
    shadows: tuple[StreamState, ...] = ()
    restored: float = 0.0
    inside: dict[str, Spend] = {}

    @property
    def cost(self) -> float:
        """USD spent by all models."""
        return sum(spend.cost for spend in self.spend.values())

    @property
    def saved(self) -> float:
        """USD saved against the reference alone (estimated), in batches and streams."""
        batches = sum(certificate.saved or 0.0 for certificate in self.certificates)
        return batches + sum(stream.saved or 0.0 for stream in self.streams)

    def __str__(self) -> str:
        """Lay the totals out as plain text."""
        width = max([5, *map(len, self.spend)])
        head = f"{'model':<{width}}  {'calls':>8}  {'failed':>6}  {'served':>8}"
        lines = [f"{head}  {'cost (USD)':>12}"]
        for name, spend in self.spend.items():
            lines.append(
                f"{name:<{width}}  {spend.calls:>8,}  {spend.failures:>6,}  "
                f"{self.served.get(name, 0):>8,}  {spend.cost:>12.6f}"
            )
        total = f"cost {self.cost:.6f} USD, saved {self.saved:.6f} USD (estimated)"
        items = sum(stream.answered for stream in self.streams)
        lines.append(
            f"{total} in {len(self.certificates)} batches and {items:,} single items"
        )
        if self.restored:
            lines.append(f"of that, {self.restored:.6f} USD was paid in earlier runs")
        lines += [
            f"inside, {name}: {spend.cost:.6f} USD in {spend.calls:,} calls"
            for name, spend in self.inside.items()
        ]
        lines += [
            f"in shadow, {shadow.task}: {shadow.saved or 0.0:.6f} USD would have been "
            f"saved (estimated) on {shadow.answered:,} items"
            for shadow in self.shadows
        ]
        return "\n".join(lines)


class Ledger:
    """Collects spend and certificates. Not thread-safe: hold a lock around it.

    Args:
        models: Names of the models, reference first; reports list them in this order.

    Example:
        ```python
        ledger = Ledger(["big", "small"])
        ledger.add({"small": Spend(calls=1, cost=0.25)})
        assert ledger.report().cost == 0.25
        ```
    """

    def __init__(self, models: list[str]) -> None:
        """Start with nothing spent."""
        self._spend: dict[str, Spend] = {}
        self._served: dict[str, int] = {}
        self._certificates: list[Certificate] = []
        self._restored = 0.0
        self._inside: dict[str, Spend] = {}
        self.admit(models)

    def admit(self, models: Iterable[str]) -> None:
        """Keep books on these models, too; nothing is lost of those known already."""
        for name in models:
            self._spend.setdefault(name, Spend())
            self._served.setdefault(name, 0)

    def add(self, spend: Mapping[str, Spend], restored: float = 0.0) -> None:
        """Add what was spent outside a finished batch, by model.

        Args:
            spend: Model → what was spent.
            restored: USD of it that was paid in earlier runs.
        """
        self._restored += restored
        for name, part in spend.items():
            self._spend[name] = self._spend.get(name, Spend()) + part

    def itemise(self, spend: Mapping[str, Spend]) -> None:
        """Add what models were asked inside tiers."""
        for name, part in spend.items():
            self._inside[name] = self._inside.get(name, Spend()) + part

    def add_batch(self, certificate: Certificate, restored: float = 0.0) -> None:
        """Add a finished batch, and what of it was paid in earlier runs, in USD."""
        self.add(certificate.spend, restored)
        for name, count in certificate.served.items():
            self._served[name] += count
        self._certificates.append(certificate)

    def report(
        self,
        streams: Iterable[StreamState] = (),
        shadows: Iterable[StreamState] = (),
    ) -> Report:
        """Return the totals so far.

        Args:
            streams: The streams of single items; what they spent is in the ledger.
            shadows: Streams that were only tried.
        """
        streams, served = tuple(streams), dict(self._served)
        for stream in streams:
            for name, count in stream.served.items():
                served[name] += count
        return Report(
            spend=dict(self._spend),
            served=served,
            certificates=tuple(self._certificates),
            streams=streams,
            shadows=tuple(shadows),
            restored=self._restored,
            inside=dict(self._inside),
        )
