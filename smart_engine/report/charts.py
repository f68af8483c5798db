"""The pictures, drawn by matplotlib: one function each, small enough for a phone.

Only this file and `svg` import matplotlib; who may lack it goes through `plots`.
Pictures are drawn without pyplot, so that no window opens; matplotlib's settings are
changed meanwhile, so that one thread at a time may draw.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from smart_engine.batch.certificate import AuditTest, Certificate, Evidence
from smart_engine.errors import InvalidInputError
from smart_engine.evidence.acceptance import Acceptance
from smart_engine.evidence.tails import clopper_pearson_lower
from smart_engine.offline.replay import ReplayResult
from smart_engine.report import svg
from smart_engine.report.content import money, name_of, percent, plain
from smart_engine.report.theme import LIGHT, MODELS
from smart_engine.strategies import STRATEGIES
from smart_engine.stream.state import StreamState

if TYPE_CHECKING:
    from smart_engine.report.report import Report

__all__ = ["Picture", "cost", "costs", "evidence", "items", "stream"]

_WIDTH = 4.0
"""Inches; with letters of 9 points it can be read at the width of a phone."""

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": LIGHT["ink"],
    "text.parse_math": False,
    "text.usetex": False,
    "figure.facecolor": LIGHT["paper"],
    "axes.facecolor": "none",
    "axes.edgecolor": LIGHT["rule"],
    "axes.labelcolor": LIGHT["soft"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.grid": False,
    "axes.axisbelow": True,
    "grid.color": LIGHT["rule"],
    "grid.linewidth": 0.6,
    "xtick.color": LIGHT["rule"],
    "ytick.color": LIGHT["rule"],
    "xtick.labelcolor": LIGHT["soft"],
    "ytick.labelcolor": LIGHT["soft"],
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
}

_MOST_BARS = 8
"""Bars of one picture; what is beyond is drawn as one."""

_MARKS = (
    ("o", "-"),
    ("s", "--"),
    ("^", "-."),
    ("D", (0, (1, 1))),
    ("v", (0, (5, 1, 1, 1, 1, 1))),
)
"""Marks and dashes of lines, so that they differ without their colours."""


class Picture(Figure):
    """A figure that says what it shows, and shows itself in notebooks.

    Attributes:
        says: What it shows, for those who do not see it.
    """

    says: str = ""

    def to_svg(self) -> str:
        """Return it as an SVG file that follows the reader's light or dark theme."""
        return svg.standalone(self, self.says)

    def _repr_svg_(self) -> str:
        """Show it on its own paper, whatever the notebook's theme is."""
        target = io.StringIO()
        self.savefig(target, format="svg")
        return target.getvalue()


# -- pictures of a report --------------------------------------------------------------


class _Bar(NamedTuple):
    label: str
    value: str
    parts: Mapping[str, float]


def cost(report: Report) -> Picture:
    """What was paid, model by model, beside what the reference alone would have cost.

    Raises:
        InvalidInputError: If there is nothing to compare.
    """
    alone = report.reference_only_cost
    if not alone:
        hint = "it is not known that the reference alone would have cost anything"
        raise InvalidInputError("kind", "cost", hint)
    records = report.compared
    paid = _sums([{n: s.cost for n, s in r.spend.items()} for r in records])
    usd = money(max(alone, sum(paid.values())))
    bars = [
        _Bar(
            "The reference alone (estimated)",
            f"{usd(alone)} USD",
            {records[0].reference: alone},
        ),
        _Bar("Paid", f"{usd(sum(paid.values()))} USD", paid),
    ]
    says = f"{bars[1].value} were paid; the reference alone: about {bars[0].value}."
    return _draw_bars("Cost", says, bars, list(report.spend), together=True)


def items(report: Report) -> Picture:
    """Which model answered how many items, task by task.

    Raises:
        InvalidInputError: If nothing was answered yet.
    """
    tasks: dict[str, list[Mapping[str, float]]] = {}
    for certificate in report.certificates:
        tasks.setdefault(certificate.task or "batches", []).append(certificate.served)
    for state in report.streams:
        tasks.setdefault(state.task or "single items", []).append(state.served)
    served = {task: _sums(parts) for task, parts in tasks.items()}
    counted = {task: parts for task, parts in served.items() if sum(parts.values())}
    if not counted:
        raise InvalidInputError("kind", "items", "nothing has been answered yet")
    tasks_by_size = sorted(counted, key=lambda task: -sum(counted[task].values()))
    if len(counted) > _MOST_BARS:
        first, rest = tasks_by_size[: _MOST_BARS - 1], tasks_by_size[_MOST_BARS - 1 :]
        shown = {task: counted[task] for task in first}
        shown[f"{len(rest)} other tasks"] = _sums([counted[task] for task in rest])
    else:
        shown = {task: counted[task] for task in tasks_by_size}
    bars = [
        _Bar(task, f"{sum(parts.values()):,.0f} items", parts)
        for task, parts in shown.items()
    ]
    total = _sums([bar.parts for bar in bars])
    share = {name: count / sum(total.values()) for name, count in total.items()}
    told = ", ".join(f"{plain(n)} {percent(part)}" for n, part in share.items() if part)
    title = "Who answered the items"
    return _draw_bars(
        title, f"{title}: {told}.", bars, list(report.spend), together=False
    )


def evidence(certificate: Certificate) -> Picture:
    """What a batch's guarantee rests on.

    Of an audit: errors found, draw by draw, and where the draws suffice. Of another
    strategy: each candidate's disagreement, with an interval for orientation.

    Raises:
        InvalidInputError: If the certificate records no draws.
    """
    drawn = [test for test in certificate.tests if test.draws]
    if drawn:
        accepted = [test for test in drawn if test.accepted is not None]
        most = max(drawn, key=lambda test: test.draws)
        return _draw_audit(certificate, accepted[-1] if accepted else most)
    seen = [each for each in certificate.evidence if each.draws]
    if not seen:
        hint = f"{name_of(certificate)} records no draws"
        raise InvalidInputError("kind", "evidence", hint)
    return _draw_intervals(certificate, seen)


def stream(state: StreamState) -> Picture:
    """A stream over time: what can differ at most against what may; what it cost.

    Raises:
        InvalidInputError: If it has answered nothing yet.
    """
    if not state.history:
        raise InvalidInputError("kind", "stream", "nothing has been answered yet")
    answered = [*(p.answered for p in state.history), state.answered]
    allowed = [*(p.allowed for p in state.history), state.allowed]
    bound = [*(p.possible_misses for p in state.history), state.possible_misses]
    paid = [*(p.cost for p in state.history), state.cost]
    says = (
        f"After {state.answered:,} answers at most {state.possible_misses:,} differ, "
        f"with {_share(state.confidence)} confidence; {state.allowed:,} may."
    )
    with rc_context(_STYLE):
        picture = _picture(says, 3.6)
        top, below = picture.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        _title(top, f"Differing answers, {name_of(state)}")
        top.plot(
            *(answered, allowed, "--"), color=LIGHT["m0"], label="may differ (promise)"
        )
        top.plot(
            *(answered, bound), color=LIGHT["good"], label="can differ at most (proof)"
        )
        top.fill_between(answered, bound, color=LIGHT["area"], linewidth=0)
        top.legend(loc="upper left")
        top.set_ylim(bottom=0)
        _title(below, "Cost so far, in % of the reference alone")
        if state.reference_cost:
            ratio = [
                100 * usd / (count * state.reference_cost)
                for usd, count in zip(paid, answered, strict=True)
            ]
            below.plot(answered, ratio, color=LIGHT["m1"])
            below.axhline(100, color=LIGHT["m0"], linewidth=1, linestyle=":")
            below.set_ylim(0, max(110, *ratio[len(ratio) // 4 :]))
        below.set_xlabel("answers")
        _calm(top)
        _calm(below)
        _counts(below)
    return picture


# -- a picture of replays --------------------------------------------------------------


def costs(results: Sequence[ReplayResult]) -> Picture:
    """What each strategy costs at each δ, in % of the reference alone.

    Raises:
        InvalidInputError: If there are no results.
    """
    if not results:
        raise InvalidInputError("results", [], "give what `replay` returned")
    shares = sorted({result.max_disagreement for result in results})
    places = {share: place for place, share in enumerate(shares)}
    lines: dict[str, dict[float, ReplayResult]] = {}
    for result in results:
        lines.setdefault(result.strategy, {})[result.max_disagreement] = result
    cheapest = min(results, key=lambda result: result.cost_ratio)
    says = (
        f"Cost by strategy and tolerated share of differing answers; the cheapest is "
        f"{cheapest.strategy} at {_share(cheapest.max_disagreement)}: "
        f"{percent(cheapest.cost_ratio)} of the reference alone."
    )
    with rc_context(_STYLE):
        picture = _picture(says, 3.0)
        axes = picture.subplots()
        _title(axes, "Cost, in % of the reference alone")
        for name, by_share in lines.items():
            number = list(STRATEGIES).index(name)
            mark, dash = _MARKS[number % len(_MARKS)]
            axes.plot(
                [places[share] for share in sorted(by_share)],
                [100 * by_share[share].cost_ratio for share in sorted(by_share)],
                color=_colour(number),
                marker=mark,
                linestyle=dash,
                markersize=5,
                label=plain(name),
            )
        floors = {r.max_disagreement: 100 * r.cost_floor for r in results}
        axes.plot(
            list(range(len(shares))),
            [floors[share] for share in shares],
            color=LIGHT["soft"],
            linestyle=":",
            linewidth=1.2,
            marker="_",
            label="least possible",
        )
        axes.set_ylim(bottom=0)
        axes.set_xticks(range(len(shares)), [_share(share) for share in shares])
        axes.set_xlim(-0.3, len(shares) - 0.7)
        axes.set_xlabel("answers that may differ (δ)")
        _calm(axes)
        picture.legend(loc="outside lower left", ncols=3)
    return picture


# -- drawing ---------------------------------------------------------------------------


def _picture(says: str, height: float) -> Picture:
    """Begin a picture, on its own paper."""
    picture = Picture(figsize=(_WIDTH, height), layout="constrained")
    picture.says = says
    return picture


def _title(axes: Axes, text: str) -> None:
    axes.set_title(_short(text, 50), color=LIGHT["ink"], pad=8)


def _short(text: str, most: int) -> str:
    """Return a name that fits into a picture."""
    text = plain(text)
    if text.startswith("_"):  # which legends would leave out
        text = f" {text}"
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _colour(number: int) -> str:
    """Return the colour of a model: 0 is the reference, 1 the first candidate."""
    return LIGHT[MODELS[1 + (number - 1) % (len(MODELS) - 1) if number else 0]]


def _fill(number: int) -> dict[str, Any]:
    """Return how a model's bars are filled; colours that come again are hatched."""
    again = (number - 1) // (len(MODELS) - 1) if number else 0
    return {
        "facecolor": _colour(number),
        "hatch": ("", "///", "...")[min(again, 2)],
        "edgecolor": LIGHT["paper"],
        "linewidth": 0.8,
    }


def _share(share: float) -> str:
    return f"{100 * share:.6g} %"


def _sums(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Add tables up, by model."""
    total: dict[str, float] = {}
    for table in tables:
        for name, amount in table.items():
            total[name] = total.get(name, 0.0) + amount
    return total


def _calm(axes: Axes) -> None:
    """Few numbers at the upright axis, faint lines across, nothing else."""
    axes.grid(axis="y")
    axes.tick_params(length=0)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.spines["left"].set_visible(False)


def _counts(axes: Axes) -> None:
    """Few whole numbers at the lower axis."""
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _draw_bars(
    title: str,
    says: str,
    bars: Sequence[_Bar],
    models: Sequence[str],
    *,
    together: bool,
) -> Picture:
    """Draw bars that lie one below the other, each made of a part per model.

    Args:
        title: What is drawn.
        says: The same for those who do not see it.
        bars: The bars, from above.
        models: All models, in the order of their colours.
        together: Whether all bars have one measure, and shares are of the first; else
            each has its own, and all are of the same length.
    """
    # A stream that processes share may have asked a judge that this one never met.
    models = list(_sums([dict.fromkeys(models, 0.0), *(bar.parts for bar in bars)]))
    used = [name for name in models if any(bar.parts.get(name) for bar in bars)]
    longest = max(sum(bar.parts.values()) for bar in bars)
    with rc_context(_STYLE):
        names = [_short(name, 22) for name in used]
        columns = 3 if max(map(len, names), default=0) < 12 else 2
        rows = -(-len(used) // columns)
        picture = _picture(says, 0.55 + 0.62 * len(bars) + 0.24 * rows)
        axes = picture.subplots()
        _title(axes, title)
        for place, bar in enumerate(bars):
            whole = sum(bars[0 if together else place].parts.values())
            length = longest if together else whole
            axes.text(0, place - 0.36, _short(bar.label, 34), va="bottom")
            axes.text(1, place - 0.36, bar.value, va="bottom", ha="right")
            left = 0.0
            for name in used:
                part = bar.parts.get(name, 0.0)
                width = part / length
                fill = _fill(models.index(name))
                axes.barh(place, width, 0.5, left, **fill)
                if width > 0.13 and not fill["hatch"]:
                    axes.text(
                        *(left + width / 2, place, percent(part / whole)),
                        color=LIGHT["label"],
                        ha="center",
                        va="center_baseline",
                    )
                left += width
        axes.set_xlim(0, 1)
        axes.set_ylim(len(bars) - 0.6, -0.85)
        axes.axis("off")
        axes.set_title(axes.get_title(loc="left"), color=LIGHT["ink"], pad=4)
        picture.legend(
            handles=[
                Patch(label=label, **_fill(models.index(name)))
                for name, label in zip(used, names, strict=True)
            ],
            loc="outside lower left",
            ncols=columns,
            handlelength=1,
            handleheight=1,
        )
    return picture


def _draw_audit(certificate: Certificate, test: AuditTest) -> Picture:
    """Draw an audit's path of errors found and the line at which draws suffice."""
    design = Acceptance(test.items, test.max_errors, test.level, test.expected_errors)
    end = test.draws if test.accepted is None else test.accepted
    found = [number for number in test.errors if number <= end]
    top = len(found) + max(2, len(found) // 4)
    enough = [design.draws(errors) for errors in range(top + 1)]
    ending = "not proven" if test.accepted is None else f"proven after {end:,}"
    says = (
        f"Audit of {plain(test.policy)}: {len(found):,} errors in {end:,} draws, "
        f"{ending}."
    )
    with rc_context(_STYLE):
        picture = _picture(says, 2.9)
        axes = picture.subplots()
        _title(axes, f"Audit of {test.policy}, {name_of(certificate)}")
        right = max(enough[-1], end) * 1.04
        levels = np.arange(top + 1)
        axes.fill_betweenx(
            levels, enough, right, color=LIGHT["area"], step="pre", linewidth=0
        )
        axes.step(
            enough,
            levels,
            where="post",
            color=LIGHT["good"],
            linestyle="--",
            label="enough draws",
        )
        axes.step(
            [0, *found, end],
            [0, *range(1, len(found) + 1), len(found)],
            where="post",
            color=LIGHT["m1"],
            label="errors found",
        )
        axes.plot(
            [end],
            [len(found)],
            marker="o" if test.accepted is not None else "x",
            markersize=7,
            linestyle="none",
            color=LIGHT["good" if test.accepted is not None else "bad"],
            label=ending,
            clip_on=False,
            zorder=3,
        )
        axes.set_xlim(0, right)
        axes.set_ylim(-0.02 * top, top)
        axes.set_xlabel("items drawn at random and compared")
        axes.set_ylabel("errors found")
        _calm(axes)
        _counts(axes)
        picture.legend(loc="outside lower left", ncols=2)
    return picture


def _draw_intervals(certificate: Certificate, seen: Sequence[Evidence]) -> Picture:
    """Draw each candidate's disagreement and where it lies at 95 %, for one look."""
    limit = 100 * certificate.max_disagreement
    says = "; ".join(
        f"{plain(each.model)}: {each.errors:,} of {each.draws:,} drawn answers differed"
        for each in seen
    )
    with rc_context(_STYLE):
        picture = _picture(says, 1.3 + 0.5 * len(seen))
        axes = picture.subplots()
        _title(axes, f"Answers that differ, in %, {name_of(certificate)}")
        for place, each in enumerate(seen):
            share = 100 * each.errors / each.draws
            low, high = _interval(each)
            axes.plot([low, high], [place, place], color=_colour(place + 1))
            axes.plot([share], [place], "o", color=_colour(place + 1), markersize=6)
            label = f"{_short(each.model, 30)}: {each.verdict}"
            paper = {"facecolor": LIGHT["paper"], "edgecolor": "none", "pad": 1.5}
            axes.text(low, place - 0.2, label, va="bottom", bbox=paper)
        axes.axvline(limit, color=LIGHT["bad"], linestyle="--", linewidth=1.2)
        axes.text(limit, -0.95, f" may differ: {limit:g} %", color=LIGHT["bad"])
        axes.set_xlim(left=0)
        axes.set_ylim(len(seen) - 0.5, -1.1)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.tick_params(length=0)
        axes.set_xlabel("share seen, and 95 % interval of one look")
    return picture


def _interval(seen: Evidence) -> tuple[float, float]:
    """Return the 95 % interval (Clopper-Pearson) of a disagreement, in percent."""
    right = seen.draws - seen.errors
    low = float(clopper_pearson_lower(seen.errors, right, 0.95))
    high = 1 - float(clopper_pearson_lower(right, seen.errors, 0.95))
    return 100 * low, 100 * high
