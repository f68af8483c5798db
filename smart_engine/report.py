"""Totals over everything one smart model has done: what it cost, what it saved."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from smart_engine.certificate import Certificate, Spend
from smart_engine.noise import SelfAgreement
from smart_engine.stream.state import StreamState

__all__ = ["Report"]


class Report(BaseModel):
    """What was asked, paid and saved so far.

    Attributes:
        spend: Model → what it was asked and what it cost, every call included; judges
            as `judge: …`, embedding models as `embedding: …`.
        served: Model → items answered by it, in finished batches and in streams.
        certificates: One per finished batch, in the order in which they ended.
        streams: One per stream of single items: where it stands.
        shadows: One per stream that was only tried beside the reference: where it would
            stand. What was really spent on it is in `spend`.
        restored: USD of what batches spent that was paid in earlier runs, for answers
            taken from a store.
        inside: Where chains are compared, whose spend is told by chain: model → what it
            was asked inside them, and what that cost.
        noise: How often the reference agrees with itself, where that was measured.
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
        lines += [str(noise) for noise in self.noise]
        return "\n".join(lines)
