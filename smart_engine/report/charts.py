"""The pictures, drawn by matplotlib: one function each, small enough for a phone.

Only this file and `svg` import matplotlib; all other code goes through `plots`. No
picture uses pyplot, so no window opens. Drawing changes matplotlib's global settings,
so only one thread may draw at a time.
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

from smart_engine.amounts import usd
from smart_engine.batch.certificate import AuditTest, Certificate, Evidence
from smart_engine.errors import InvalidInputError
from smart_engine.evidence.tails import clopper_pearson_lower
from smart_engine.guarantee import Guarantee
from smart_engine.offline.replay import ReplayResult
from smart_engine.report import svg
from smart_engine.report.outlook import break_even
from smart_engine.report.theme import LIGHT, MODELS
from smart_engine.report.words import exact_percent, name_of, percent, plain, spread
from smart_engine.strategies import STRATEGIES
from smart_engine.stream.state import StreamPoint, StreamState

if TYPE_CHECKING:
    from smart_engine.offline.estimate import Estimate
    from smart_engine.report.report import Report

__all__ = [
    "Picture",
    "cost",
    "costs",
    "evidence",
    "items",
    "outlook",
    "savings",
    "stream",
]

_WIDTH = 4.0
"""Inches: with 9-point letters, readable at the width of a phone."""

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    **dict.fromkeys(("font.size", "axes.titlesize", "legend.fontsize"), 9),
    "text.color": LIGHT["ink"],
    "figure.facecolor": LIGHT["paper"],
    "axes.facecolor": "none",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    **{f"{name}.labelcolor": LIGHT["soft"] for name in ("axes", "xtick", "ytick")},
    **dict.fromkeys(("axes.edgecolor", "grid.color"), LIGHT["rule"]),
    **dict.fromkeys(("xtick.color", "ytick.color"), LIGHT["rule"]),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "axes.grid"), False),
    **dict.fromkeys(("text.parse_math", "text.usetex", "legend.frameon"), False),
}

_MAX_BARS = 8
"""Bars in one picture; the smallest tasks share the last one."""

_MARKS = (
    ("o", "-"),
    ("s", "--"),
    ("^", "-."),
    ("D", (0, (1, 1))),
    ("v", (0, (5, 1, 1, 1, 1, 1))),
)
"""Marks and dashes that tell lines apart without their colours."""


class Picture(Figure):
    """A figure with a text alternative; notebooks display it.

    Attributes:
        alt_text: What it shows, in words.
    """

    alt_text: str = ""

    def to_svg(self) -> str:
        """Return it as an SVG file that follows the reader's light or dark theme."""
        return svg.standalone(self, self.alt_text)

    def _repr_svg_(self) -> str:
        """Return it on its own light background, whatever the notebook's theme is."""
        target = io.StringIO()
        self.savefig(target, format="svg")
        return target.getvalue()


# -- pictures of a report --------------------------------------------------------------


class _Bar(NamedTuple):
    label: str
    value: str
    parts: Mapping[str, float]


def cost(report: Report) -> Picture:
    """Draw what was paid, model by model, beside the cost of the reference alone.

    Raises:
        InvalidInputError: If there is nothing to compare.
    """
    alone = report.reference_only_cost
    if not alone:
        hint = "it is not known that the reference alone would have cost anything"
        raise InvalidInputError("kind", "cost", hint)
    records = report.compared
    parts = [{n: s.cost for n, s in r.spend.items()} for r in records]
    paid = _sums([report.earlier.paid, *parts])
    total, total_alone = f"{usd(sum(paid.values()))} USD", f"{usd(alone)} USD"
    reference = _Bar(
        "The reference alone (estimated)",
        total_alone,
        {(records or report.records)[0].reference: alone},
    )
    text = f"{total} were paid; the reference alone: about {total_alone}."
    bars = [reference, _Bar("Paid", total, paid)]
    return _draw_bars("Cost", text, bars, list(report.spend), together=True)


def items(report: Report) -> Picture:
    """Draw which model answered how many items, task by task.

    Raises:
        InvalidInputError: If nothing was answered yet.
    """
    parts: dict[str, list[Mapping[str, float]]] = {}
    if report.earlier.batches:
        parts["earlier batches"] = [report.earlier.served]
    for certificate in report.certificates:
        parts.setdefault(certificate.task or "batches", []).append(certificate.served)
    for state in report.streams:
        parts.setdefault(state.task or "single items", []).append(state.served)
    tasks = [(task, _sums(served)) for task, served in parts.items()]
    tasks = [(task, served) for task, served in tasks if sum(served.values())]
    if not tasks:
        raise InvalidInputError("kind", "items", "nothing has been answered yet")
    tasks.sort(key=lambda task: -sum(task[1].values()))
    if len(tasks) > _MAX_BARS:
        rest = tasks[_MAX_BARS - 1 :]
        others = (f"{len(rest)} other tasks", _sums([served for _, served in rest]))
        tasks = [*tasks[: _MAX_BARS - 1], others]
    bars = [
        _Bar(task, f"{sum(served.values()):,.0f} items", served)
        for task, served in tasks
    ]
    total = _sums([bar.parts for bar in bars])
    shares = {name: count / sum(total.values()) for name, count in total.items()}
    text = ", ".join(f"{plain(n)} {percent(x)}" for n, x in shares.items() if x)
    title = "Who answered the items"
    return _draw_bars(
        title, f"{title}: {text}.", bars, list(report.spend), together=False
    )


def evidence(certificate: Certificate) -> Picture:
    """Draw what a batch's guarantee rests on.

    For an audit: detected errors, draw by draw, and where the draws suffice. For
    another strategy: each candidate's disagreement, with an interval for orientation.

    Raises:
        InvalidInputError: If the certificate records no draws.
    """
    drawn = [test for test in certificate.tests if test.draws]
    if drawn:
        accepted = [test for test in drawn if test.ended is not None]
        longest = max(drawn, key=lambda test: test.draws)
        return _draw_audit(certificate, accepted[-1] if accepted else longest)
    seen = [each for each in certificate.evidence if each.draws]
    if not seen:
        hint = f"{name_of(certificate)} records no draws"
        raise InvalidInputError("kind", "evidence", hint)
    return _draw_intervals(certificate, seen)


@rc_context(_STYLE)
def stream(state: StreamState) -> Picture:
    """Draw a stream over time: allowance, bound of undetected errors, and cost.

    Raises:
        InvalidInputError: If it has answered nothing yet.
    """
    if not state.history:
        raise InvalidInputError("kind", "stream", "nothing has been answered yet")
    points: list[StreamPoint | StreamState] = [*state.history, state]
    answered = [point.answered for point in points]
    bound = [point.possible_misses for point in points]
    text = (
        f"After {state.answered:,} answers at most {state.possible_misses:,} differ, "
        f"with {exact_percent(state.confidence)} confidence; "
        f"{state.allowed:,} are allowed."
    )
    picture = _picture(text, 3.6)
    top, below = picture.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _title(top, f"Differing answers, {name_of(state)}")
    allowed = [point.allowed for point in points]
    top.plot(answered, allowed, "--", color=LIGHT["m0"], label="allowed (promise)")
    top.plot(answered, bound, color=LIGHT["good"], label="at most (proof)")
    top.fill_between(answered, bound, color=LIGHT["area"], linewidth=0)
    top.legend(loc="upper left")
    top.set_ylim(bottom=0)
    _title(below, "Cost so far, in % of the reference alone")
    if state.reference_cost:
        per_answer = state.reference_cost / 100
        ratio = [point.cost / (point.answered * per_answer) for point in points]
        below.plot(answered, ratio, color=LIGHT["m1"])
        below.axhline(100, color=LIGHT["m0"], linewidth=1, linestyle=":")
        below.set_ylim(0, max(110, *ratio[len(ratio) // 4 :]))
    below.set_xlabel("answers")
    _calm(top)
    _calm(below)
    _counts(below)
    return picture


@rc_context(_STYLE)
def outlook(expected: Estimate) -> Picture:
    """Draw the share that jobs are expected to save, by their size, with its range.

    Raises:
        InvalidInputError: If jobs of one size only were estimated.
    """
    by_size = {**expected.by_size, expected.items: expected.saved_share}
    sizes = sorted(by_size)
    if len(sizes) < 2:
        hint = "no other sizes were estimated: estimate(…, sizes=…)"
        raise InvalidInputError("kind", "outlook", hint)
    ends = sizes[0], sizes[-1]
    saved = ", ".join(f"{spread(by_size[size])} at {size:,} items" for size in ends)
    text = f"Expected savings: {saved}. {break_even(expected, 'items')}"
    picture = _picture(text, 3.0)
    axes = picture.subplots()
    _title(axes, f"Expected savings in %, {expected.task or 'a job'}")
    mean, low, high = (
        [100 * getattr(by_size[size], name) for size in sizes]
        for name in ("mean", "low", "high")
    )
    axes.fill_between(sizes, low, high, color=LIGHT["area"], label="least to most")
    axes.plot(sizes, mean, "o-", color=LIGHT["m1"], markersize=3, label="expected")
    axes.axhline(0, color=LIGHT["m0"], linewidth=1, linestyle=":")
    (point,) = axes.plot([expected.items], [100 * expected.saved_share.mean], "D")
    point.set(color=LIGHT["good"], label="this job", markersize=6, zorder=3)
    if expected.pays_from is not None:
        line = axes.axvline(expected.pays_from, color=LIGHT["soft"], linestyle="--")
        line.set_label("break-even")
    tens = [10**power for power in range(1, 7) if sizes[0] <= 10**power <= sizes[-1]]
    _sizes(axes, tens if len(tens) > 1 else [sizes[0], sizes[-1]])
    axes.set_ylim(min(0, *low), 100)
    _calm(axes)
    picture.legend(loc="outside lower left", ncols=2)
    return picture


# -- a picture of replays --------------------------------------------------------------


@rc_context(_STYLE)
def costs(results: Sequence[ReplayResult]) -> Picture:
    """Draw what each strategy costs at each δ, in % of the reference alone.

    Raises:
        InvalidInputError: If there are no results.
    """
    if not results:
        raise InvalidInputError("results", [], "give what `replay` returned")
    shares = sorted({result.tolerance for result in results})
    lines: dict[str, dict[float, ReplayResult]] = {}
    for result in results:
        lines.setdefault(result.strategy, {})[result.tolerance] = result
    cheapest = min(results, key=lambda result: result.cost_ratio)
    text = (
        f"Cost by strategy and tolerated share of differing answers; the cheapest is "
        f"{cheapest.strategy} at {exact_percent(cheapest.tolerance)}: "
        f"{percent(cheapest.cost_ratio)} of the reference alone."
    )
    picture = _picture(text, 3.0)
    axes = picture.subplots()
    _title(axes, "Cost, in % of the reference alone")
    for name, by_share in lines.items():
        number = list(STRATEGIES).index(name)
        mark, dash = _MARKS[number % len(_MARKS)]
        places = [place for place, share in enumerate(shares) if share in by_share]
        ratios = [100 * by_share[share].cost_ratio for share in sorted(by_share)]
        (line,) = axes.plot(places, ratios, color=_colour(number), label=plain(name))
        line.set(marker=mark, linestyle=dash, markersize=5)
    floors = {r.tolerance: 100 * r.cost_floor for r in results}
    (line,) = axes.plot([floors[share] for share in shares], ":_", linewidth=1.2)
    line.set(color=LIGHT["soft"], label="least possible")
    axes.set_ylim(bottom=0)
    axes.set_xticks(range(len(shares)), [exact_percent(share) for share in shares])
    axes.set_xlim(-0.3, len(shares) - 0.7)
    axes.set_xlabel("answers that may differ (δ)")
    _calm(axes)
    picture.legend(loc="outside lower left", ncols=3)
    return picture


def savings(results: Sequence[ReplayResult]) -> Picture:
    """Draw the share saved by the size of the job, a line for each δ.

    Raises:
        InvalidInputError: If there are no results.
    """
    if not results:
        raise InvalidInputError("results", [], "give what `savings` returned")
    lines: dict[float, dict[int, float]] = {}
    for result in results:
        saved = 100 * (1 - result.cost_ratio)
        share = result.max_disagreement or 0.0
        lines.setdefault(share, {})[result.items] = saved
    most = max(results, key=lambda result: -result.cost_ratio)
    text = (
        f"Share saved by the number of items; most, {percent(1 - most.cost_ratio)}, at "
        f"{most.items:,} items, of which {exact_percent(most.max_disagreement or 0.0)} "
        "may differ."
    )
    picture = _picture(text, 3.0)
    axes = picture.subplots()
    _title(axes, "Saved, in % of the reference alone")
    for number, (share, by_size) in enumerate(sorted(lines.items())):
        mark, dash = _MARKS[number % len(_MARKS)]
        sizes = sorted(by_size)
        (line,) = axes.plot(sizes, [by_size[size] for size in sizes])
        line.set(color=_colour(number), marker=mark, linestyle=dash, markersize=5)
        line.set_label(f"{exact_percent(share)} may differ")
    sizes = sorted({result.items for result in results})
    _sizes(axes, sizes)
    axes.set_ylim(0, 100)
    _calm(axes)
    picture.legend(loc="outside lower left", ncols=2)
    return picture


# -- drawing ---------------------------------------------------------------------------


def _picture(alt_text: str, height: float) -> Picture:
    picture = Picture(figsize=(_WIDTH, height), layout="constrained")
    picture.alt_text = alt_text
    return picture


def _title(axes: Axes, text: str) -> None:
    axes.set_title(_short(text, 50), color=LIGHT["ink"], pad=8)


def _short(text: str, length: int) -> str:
    """Return a name cut to a length."""
    text = plain(text)
    if text.startswith("_"):  # matplotlib leaves such names out of legends
        text = f" {text}"
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _colour(number: int) -> str:
    """Return the colour of a model: 0 is the reference, 1 the first candidate."""
    return LIGHT[MODELS[1 + (number - 1) % (len(MODELS) - 1) if number else 0]]


def _fill(number: int) -> dict[str, Any]:
    """Return the fill of a model's bars; a hatch tells repeated colours apart."""
    again = (number - 1) // (len(MODELS) - 1) if number else 0
    return {
        "facecolor": _colour(number),
        "hatch": ("", "///", "...")[min(again, 2)],
        "edgecolor": LIGHT["paper"],
        "linewidth": 0.8,
    }


def _sums(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Add tables up, by model."""
    total: dict[str, float] = {}
    for table in tables:
        for name, amount in table.items():
            total[name] = total.get(name, 0.0) + amount
    return total


def _calm(axes: Axes) -> None:
    """Reduce the y axis to a few numbers and faint lines across."""
    axes.grid(axis="y")
    axes.tick_params(length=0)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.spines["left"].set_visible(False)


def _sizes(axes: Axes, sizes: Sequence[int]) -> None:
    """Show sizes of jobs on a logarithmic x axis, some of them by number."""
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("items of the job")


def _counts(axes: Axes) -> None:
    """Show a few whole numbers on the x axis."""
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


@rc_context(_STYLE)
def _draw_bars(
    title: str,
    alt_text: str,
    bars: Sequence[_Bar],
    models: Sequence[str],
    *,
    together: bool,
) -> Picture:
    """Draw horizontal bars, each made of a part per model.

    `models` are in the order of their colours. If `together`, all bars share one scale
    and shares are of the first bar; otherwise each has its own scale and full length.
    """
    # Other processes of a shared stream may have asked models that are not in `models`.
    models = list(_sums([dict.fromkeys(models, 0.0), *(bar.parts for bar in bars)]))
    used = [name for name in models if any(bar.parts.get(name) for bar in bars)]
    longest = max(sum(bar.parts.values()) for bar in bars)
    names = [_short(name, 22) for name in used]
    fills = {name: _fill(models.index(name)) for name in used}
    columns = 3 if max(map(len, names), default=0) < 12 else 2
    rows = -(-len(used) // columns)
    picture = _picture(alt_text, 0.55 + 0.62 * len(bars) + 0.24 * rows)
    axes = picture.subplots()
    axes.set_title(_short(title, 50), color=LIGHT["ink"], pad=4)
    for place, bar in enumerate(bars):
        whole = sum(bars[0 if together else place].parts.values())
        length = longest if together else whole
        axes.text(0, place - 0.36, _short(bar.label, 34), va="bottom")
        axes.text(1, place - 0.36, bar.value, va="bottom", ha="right")
        left = 0.0
        for name in used:
            part = bar.parts.get(name, 0.0)
            width = part / length
            axes.barh(place, width, 0.5, left, **fills[name])
            if width > 0.13 and not fills[name]["hatch"]:
                label = axes.text(left + width / 2, place, percent(part / whole))
                label.set(color=LIGHT["label"], ha="center", va="center_baseline")
            left += width
    axes.set_xlim(0, 1)
    axes.set_ylim(len(bars) - 0.6, -0.85)
    axes.axis("off")
    legend = zip(names, fills.values(), strict=True)
    picture.legend(
        handles=[Patch(label=name, **fill) for name, fill in legend],
        loc="outside lower left",
        ncols=columns,
        handlelength=1,
        handleheight=1,
    )
    return picture


@rc_context(_STYLE)
def _draw_audit(certificate: Certificate, test: AuditTest) -> Picture:
    """Draw an audit's detected errors, and the line at which the draws suffice."""
    guarantee = Guarantee(certificate.max_disagreement, certificate.confidence)
    design = test.replay(guarantee).acceptance
    end = test.draws if test.accepted is None else test.accepted
    detected = [number for number in test.errors if number <= end]
    count = len(detected)
    top = count + max(2, count // 4)
    enough = [design.draws(errors) for errors in range(top + 1)]
    outcome = "not proven" if test.ended is None else f"proven after {test.ended:,}"
    mark, colour = ("x", "bad") if test.ended is None else ("o", "good")
    text = (
        f"Audit of {plain(test.policy)}: {count:,} errors in {end:,} draws, {outcome}."
    )
    picture = _picture(text, 2.9)
    axes = picture.subplots()
    _title(axes, f"Audit of {test.policy}, {name_of(certificate)}")
    right = max(enough[-1], end) * 1.04
    levels = np.arange(top + 1)
    axes.fill_betweenx(
        levels, enough, right, color=LIGHT["area"], step="pre", linewidth=0
    )
    (line,) = axes.step(enough, levels, "--", where="post", label="enough draws")
    line.set_color(LIGHT["good"])
    draws, errors = [0, *detected, end], [0, *range(1, count + 1), count]
    (line,) = axes.step(draws, errors, where="post", label="detected errors")
    line.set_color(LIGHT["m1"])
    (point,) = axes.plot([end], [count], mark, color=LIGHT[colour], label=outcome)
    point.set(markersize=7, clip_on=False, zorder=3)
    axes.set_xlim(0, right)
    axes.set_ylim(-0.02 * top, top)
    axes.set_xlabel("items drawn at random and compared")
    axes.set_ylabel("detected errors")
    _calm(axes)
    _counts(axes)
    picture.legend(loc="outside lower left", ncols=2)
    return picture


@rc_context(_STYLE)
def _draw_intervals(certificate: Certificate, seen: Sequence[Evidence]) -> Picture:
    """Draw each candidate's disagreement with its 95 % interval, valid for one look."""
    limit = 100 * (certificate.max_disagreement or 1.0)
    text = "; ".join(
        f"{plain(each.model)}: {each.errors:,} of {each.draws:,} drawn answers differed"
        for each in seen
    )
    picture = _picture(text, 1.3 + 0.5 * len(seen))
    axes = picture.subplots()
    _title(axes, f"Answers that differ, in %, {name_of(certificate)}")
    for place, each in enumerate(seen):
        share = 100 * each.errors / each.draws
        low, high = _interval(each)
        colour = _colour(place + 1)
        axes.plot([low, high], [place, place], color=colour)
        axes.plot([share], [place], "o", color=colour, markersize=6)
        label = f"{_short(each.model, 30)}: {each.verdict}"
        paper = {"facecolor": LIGHT["paper"], "edgecolor": "none", "pad": 1.5}
        axes.text(low, place - 0.2, label, va="bottom", bbox=paper)
    axes.axvline(limit, color=LIGHT["bad"], linestyle="--", linewidth=1.2)
    axes.text(limit, -0.95, f" allowed: {limit:g} %", color=LIGHT["bad"])
    axes.set_xlim(left=0)
    axes.set_ylim(len(seen) - 0.5, -1.1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel("observed share, and 95 % interval of one look")
    return picture


def _interval(seen: Evidence) -> tuple[float, float]:
    """Return the 95 % interval (Clopper-Pearson) of a disagreement, in percent."""
    right = seen.draws - seen.errors
    low = float(clopper_pearson_lower(seen.errors, right, 0.95))
    high = 1 - float(clopper_pearson_lower(right, seen.errors, 0.95))
    return 100 * low, 100 * high
