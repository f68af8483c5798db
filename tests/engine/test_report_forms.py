"""A report in every form: the same figures, nothing overstated, nothing unescaped."""

from __future__ import annotations

import html
import importlib
import io
import json
import re
import sys
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from fuzzing import FEWER
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import beta

from smart_engine import (
    BatchSession,
    Certificate,
    Failure,
    Guarantee,
    InvalidInputError,
    MissingExtraError,
    Report,
    Spend,
    StreamSession,
    plot_costs,
    replay,
    verify,
)
from smart_engine.amounts import usd
from smart_engine.batch.self_agreement import SelfAgreement
from smart_engine.equivalence import Exact
from smart_engine.evidence.task_promise import TaskPromise
from smart_engine.offline.estimate import estimate
from smart_engine.offline.traces import Simulation
from smart_engine.report import theme
from smart_engine.report.costs import models
from smart_engine.report.evidence import policies, self_agreement
from smart_engine.report.headline import headlines, summary
from smart_engine.report.notes import notes, untried
from smart_engine.report.outlook import expectations, outlook_tables
from smart_engine.report.tables import tables
from smart_engine.report.words import at_least, percent, plain, whole_percent

HOSTILE = """<b>"大"</b> &amp; [a](b) | $x$ `y` *z* {{7}} \x1b[31m\u202e</title>"""


def a_stream(table, tiers, items: int, task: str | None = None):
    """Answer items one by one; return the state of the stream."""
    session = StreamSession(tiers, Guarantee(0.1, 0.9), task=task)
    for number in range(items):
        item = session.arrive()
        while calls := session.next_calls(item):
            for call in calls:
                session.record(call, table[call.tier][number])
        session.answer(item)
    return session.state()


def summed(*certificates: Certificate, **more) -> Report:
    """Return the report of batches."""
    names = list(certificates[0].served)
    return Report(
        spend={n: sum((c.spend[n] for c in certificates), Spend()) for n in names},
        served={n: sum(c.served[n] for c in certificates) for n in names},
        certificates=certificates,
        **more,
    )


@pytest.fixture(scope="module")
def report(drive, tiers, models) -> Report:
    """Two batches, a stream, a shadow, a judge, and answers from a store."""
    table = models(900, 0.01, 0.2)
    table["c1"][5] = Failure(TimeoutError("no answer"))
    sessions = [
        BatchSession(900, tiers(2), Guarantee(0.1, 0.9), strategy=name, task=name)
        for name in ("audit", "mix")
    ]
    batches = summed(*(drive(session, table).certificate for session in sessions))
    stream, shadow = (
        a_stream(table, tiers(2), items, task)
        for items, task in ((900, "live"), (300, None))
    )
    spend = {n: part + stream.spend[n] for n, part in batches.spend.items()}
    spend["big"] += Spend(calls=300, cost=300.0)
    spend["judge: c1"] = Spend(calls=3, cost=0.25)
    return Report(
        spend=spend,
        served={n: count + stream.served[n] for n, count in batches.served.items()},
        certificates=batches.certificates,
        streams=(stream,),
        shadows=(shadow,),
        restored=3.0,
        noise=(
            SelfAgreement(
                task="live",
                reference="big",
                equivalence="Exact()",
                items=20,
                disagreements=1,
                confidence=0.95,
                cost=40.0,
            ),
        ),
        estimates=(
            estimate(
                {name: results[:40] for name, results in table.items()},
                300,
                Guarantee(0.1, 0.9),
                Exact(),
                sizes=[50, 100, 1_000],
                shares=[0.2],
                task="live",
                jobs=3,
            ),
        ),
    )


# -- what is said ------------------------------------------------------------------


def test_totals_are_those_of_what_can_be_compared(report) -> None:
    parts = [*report.certificates, *report.streams]
    assert report.records == tuple(parts)
    alone = sum(part.reference_only_cost for part in parts)
    assert report.reference_only_cost == pytest.approx(alone)
    assert report.saved == pytest.approx(alone - report.compared_cost)
    assert report.cost == pytest.approx(report.compared_cost + 300.25)


def test_the_headline_shows_cost_saving_and_guarantee(report) -> None:
    paid, alone, saved, answers, guarantee = headlines(report)
    assert paid.value == f"{report.cost:,.2f} USD"
    assert (alone.note, saved.note[:9]) == ("estimated", "estimated")
    assert saved.value == f"{report.saved:,.2f} USD"
    assert answers == ("Answers", "2,700", "in 2 batches and 1 stream")
    assert guarantee.value == "3 of 3 valid"
    assert guarantee.note == (
        "at most 10 % of the answers differ from big's, with 90 % confidence"
    )


def test_money_beside_the_savings_is_explained(report) -> None:
    restored, judges, beside = notes(report)
    assert "3.00 USD" in restored
    assert "earlier runs" in restored
    assert judges.startswith("0.25 USD")
    assert beside.startswith("300.25 USD")


def test_a_report_without_a_reference_cost_claims_no_saving(drive, tiers, models):
    certificate = drive(
        BatchSession(20, tiers(1), Guarantee(0.5, 0.9), min_saving=0), models(20, 0.0)
    ).certificate
    unknown = certificate.model_copy(update={"reference_only_cost": None})
    report = summed(unknown)
    assert report.reference_only_cost is None
    assert "not known" in summary(report)
    assert [h.value for h in headlines(report)[1:3]] == ["not known"] * 2
    assert "their savings are not known" in notes(report)[-1]
    with pytest.raises(InvalidInputError, match="not known"):
        report.plot("cost")
    assert "not known" in report.to_html()


def test_a_loss_is_called_one(drive, tiers, models) -> None:
    session = BatchSession(40, tiers(1), Guarantee(0.05, 0.95), min_saving=0)
    report = summed(drive(session, models(40, 0.5, costs=(1.0, 0.9))).certificate)
    assert report.saved < 0
    assert "USD more than " in summary(report)
    assert headlines(report)[2].value.startswith("-")


def test_slices_that_one_policy_serves_name_it_once(drive, tiers, models) -> None:
    session = BatchSession(400, tiers(1), Guarantee(0.05, 0.95), min_saving=0)
    record = drive(session, models(400, 0.0)).certificate
    assert record.tests[-1].accepted is not None
    twice = record.model_copy(update={"tests": record.tests * 2})
    assert policies(summed(twice)) == f"{record.tests[-1].policy} (1 batch)"


def test_savings_without_a_promise_say_so(drive, tiers, models) -> None:
    session = BatchSession(400, tiers(1), Guarantee(0.05, 0.95), min_saving=0)
    record = drive(session, models(400, 0.0)).certificate
    assert "promised" not in summary(summed(record))
    broken = summed(record.model_copy(update={"valid": False}))
    assert summary(broken).endswith(" USD, of which nothing is promised.")


def test_free_models_have_a_report(drive, tiers, models) -> None:
    session = BatchSession(40, tiers(1), Guarantee(0.05, 0.95))
    report = summed(drive(session, models(40, 0.0, costs=(0.0, 0.0))).certificate)
    assert headlines(report)[1].value == "0.00 USD"
    assert summary(report) == (
        "40 answers for 0.00 USD; big alone would have cost nothing."
    )
    with pytest.raises(InvalidInputError, match="would have cost anything"):
        report.plot("cost")


def test_the_summary_leaves_out_what_bought_no_answer(report) -> None:
    said = summary(report)
    assert f"for {report.compared_cost:,.2f} USD" in said
    share = at_least(1 - report.compared_cost / report.reference_only_cost)
    assert said.startswith(f"Saved about {share} against big alone")


def test_work_of_other_processes_is_explained(report) -> None:
    elsewhere = report.model_copy(update={"spend": {"big": Spend()}})
    assert "by other processes" in notes(elsewhere)[-1]
    paid = [bar.get_width() for bar in elsewhere.plot("cost").axes[0].patches[1:]]
    share = report.compared_cost / report.reference_only_cost
    assert sum(paid) == pytest.approx(share)


def test_the_self_agreement_of_the_reference_is_shown(report) -> None:
    (row,) = self_agreement(report).rows
    assert row[:6] == ("live", "big", "20", "1", "5 %", "0.127 % to 24.9 %")
    assert "How often the reference differs from itself" in report.to_markdown()


def test_an_empty_report_has_every_form() -> None:
    report = Report(spend={"big": Spend()}, served={"big": 0}, certificates=())
    for form in (report.to_html(), report.to_markdown(), report._repr_html_()):
        assert "0.00 USD" in form.replace("&nbsp;", " ")
        assert "Nothing has been answered yet" in form
    for kind in ("cost", "items", "evidence", "stream"):
        with pytest.raises(InvalidInputError):
            report.plot(kind)


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (0.0, "0.00"),
        (1e-17, "0.00"),
        (0.00000123456, "0.00000123"),
        (0.099999, "0.10"),
        (0.5, "0.50"),
        (-0.5, "-0.50"),
        (0.9999, "1.00"),
        (1234.5, "1,234.50"),
    ],
)
def test_an_amount_is_written_to_three_digits_or_to_the_cent(amount, written) -> None:
    assert usd(amount) == written


def test_a_report_writes_itself_to_the_file_that_is_named(report, tmp_path) -> None:
    for form in ("html", "markdown", "json"):
        write, path = getattr(report, f"to_{form}"), tmp_path / f"report.{form}"
        named = str(path) if form == "json" else path
        assert write(named) == path.read_text(encoding="utf-8") == write()


def test_an_amount_is_written_alike_in_every_form(report) -> None:
    console = pytest.importorskip("rich.console")
    amounts = {usd(spend.cost) for spend in report.spend.values()}
    amounts |= {usd(report.cost), usd(report.saved)}
    target = io.StringIO()
    console.Console(file=target, width=200, color_system=None).print(report)
    page = html.unescape(report.to_html()).replace("\xa0", " ")
    for form in (str(report), target.getvalue(), report.to_markdown(), page):
        assert not [amount for amount in amounts if amount not in form]


@given(st.floats(0, 1), st.floats(0, 1))
def test_shares_are_near_and_savings_are_never_more_than_they_are(one, two) -> None:
    shown = float(at_least(one).removesuffix(" %"))
    assert one * 100 - 0.1 - 1e-6 <= shown <= one * 100 + 1e-6
    low, high = sorted((one, two))
    assert float(percent(low)[:-2]) <= float(percent(high)[:-2])


# -- the page ----------------------------------------------------------------------

VOID = {"br", "meta"}
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "footer"),
    *("section", "h1", "h2", "p", "b", "br", "span", "code", "pre", "ul", "li"),
    *("div", "dl", "dt", "dd", "details", "summary", "figure", "figcaption"),
    *("table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td"),
}
DRAWN = {
    *("svg", "style", "defs", "clippath", "g", "path", "pattern", "rect", "use"),
    "text",
}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.pre: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "pre":
            self.pre.append("")

    def handle_startendtag(self, tag, attributes) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if "style" not in self.open:
            self.text += data
        if "pre" in self.open:
            self.pre[-1] += data

    @property
    def names(self) -> set[str]:
        return {tag for tag, _ in self.tags}


@pytest.fixture(scope="module")
def written(report) -> str:
    return report.to_html()


@pytest.fixture(scope="module")
def page(written) -> Page:
    return Page(written)


def test_the_page_stands_alone(written, page) -> None:
    assert page.names <= TAGS | DRAWN
    values = [v for _, attributes in page.tags for v in attributes.items()]
    assert not [k for k, _ in values if k.startswith("on") or k == "src"]
    linked = [v for k, v in values if k in {"href", "xlink:href"}]
    assert all(link.startswith("#") for link in linked)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in values
    assert not re.findall(r"@import|url\((?!#)", written)
    ids = [v for k, v in values if k == "id"]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in linked} <= set(ids)


def test_the_page_shows_everything_in_reading_order(report, page) -> None:
    for certificate in report.certificates:
        assert certificate.claim in page.text
    assert report.streams[0].claim in page.text
    places = [
        page.text.index(word)
        for word in (headlines(report)[0].value, report.certificates[0].claim)
    ] + [page.text.index(grid.caption) for grid in tables(report)]
    assert places == sorted(places)  # in the order in which to read it
    captions = [tag for tag, _ in page.tags if tag == "caption"]
    assert len(captions) == [tag for tag, _ in page.tags].count("table")
    scopes = {a.get("scope") for tag, a in page.tags if tag == "th"}
    assert scopes == {"row", "col"}


def test_the_page_holds_certificates_that_can_be_verified(report, page) -> None:
    *certificates, stream = page.pre
    read = [Certificate.model_validate_json(text) for text in certificates]
    assert tuple(read) == report.certificates
    assert all(check.holds for check in verify(read[0]))
    assert json.loads(stream)["task"] == "live"
    assert "checks recomputed for this page, all hold" in page.text
    assert "smart verify" in page.text


def test_the_page_has_a_picture_of_everything_that_can_be_drawn(report, page) -> None:
    drawn = [a["aria-label"] for tag, a in page.tags if tag == "svg"]
    assert drawn == [
        report.plot("cost").alt_text,
        report.plot("items").alt_text,
        report.plot("outlook").alt_text,
        report.plot("evidence", which=0).alt_text,
        report.plot("evidence", which=1).alt_text,
        report.plot("stream").alt_text,
    ]


@pytest.mark.usefixtures("undrawn")
def test_a_forged_certificate_is_called_invalid(report) -> None:
    audit = report.certificates[0]
    forged = audit.model_copy(update={"max_errors": audit.max_errors + 400})
    page = Page(report.model_copy(update={"certificates": (forged,)}).to_html())
    assert "✗ not valid" in page.text
    assert "1 of 2 valid" in page.text
    assert "The claim does not follow from the record" in page.text
    assert forged.claim not in page.text


@pytest.fixture
def long(report) -> Report:
    """Thirty batches."""
    many = tuple(
        report.certificates[1].model_copy(update={"task": f"job {number}"})
        for number in range(30)
    )
    return report.model_copy(update={"certificates": many, "streams": ()})


@pytest.mark.usefixtures("undrawn")
def test_the_page_of_a_long_history_shows_the_newest_in_full(long) -> None:
    page = Page(long.to_html())
    assert len(page.pre) == 8
    assert "22 more are in" in page.text
    assert page.text.count("at most 90 of 900 answers") == 30


def test_the_picture_of_a_long_history_stays_readable(long) -> None:
    bars = [text.get_text() for text in long.plot("items").axes[0].texts]
    assert "23 other tasks" in bars
    assert sum("items" in text for text in bars) == 8


# -- no name breaks a form ----------------------------------------------------------

NAMES = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    [HOSTILE, "<script>alert(1)</script>", "a|b\n- c\n# d", "$\\frac{", "[red]x[/]"]
)


def named(report: Report, name: str) -> Report:
    """Return the report with a name everywhere that users and models choose names."""
    record = report.certificates[0]
    renamed = record.model_copy(
        update={
            "task": name,
            "equivalence": name,
            "reference": name,
            "strategy": f"mix {name}",
            "tests": (record.tests[0].model_copy(update={"policy": name}),),
        }
    )
    spend = {f"{name} {n}": spend for n, spend in enumerate(report.spend.values())}
    return report.model_copy(
        update={
            "certificates": (renamed,),
            "streams": (report.streams[0].model_copy(update={"task": name}),),
            "spend": spend,
            "served": dict.fromkeys(spend, 3),
            "inside": {name: Spend(calls=1)},
            "noise": tuple(
                part.model_copy(update={"task": name, "reference": name})
                for part in report.noise
            ),
            "estimates": tuple(
                part.model_copy(update={"task": name}) for part in report.estimates
            ),
        }
    )


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Leave matplotlib out: names in pictures have a test of their own."""
    for module in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, module, None)
    for module in ("charts", "svg"):
        monkeypatch.delitem(sys.modules, f"smart_engine.report.{module}", False)
        package = importlib.import_module("smart_engine.report")
        monkeypatch.delattr(package, module, False)


def test_without_the_extra_the_page_says_how_to_get_pictures(report, undrawn) -> None:
    assert "pip install 'smart-llm[plots]'" in Page(report.to_html()).text
    with pytest.raises(MissingExtraError, match=r"smart-llm\[plots\]"):
        report.plot("items")
    with pytest.raises(MissingExtraError):
        plot_costs([])


@pytest.mark.usefixtures("undrawn")
def test_html_escapes_every_name(report) -> None:
    @FEWER
    @given(NAMES)
    def check(name: str) -> None:
        renamed = named(report, name)
        page = Page(renamed.to_html())
        assert page.names <= TAGS
        shown = " ".join(page.text.split())
        assert plain(f"{name} 0") in shown
        assert plain(f"by the rule '{name}'.") in shown
        certificate = Certificate.model_validate_json(page.pre[0])
        assert certificate == renamed.certificates[0]
        assert Page(renamed._repr_html_()).names <= TAGS

    check()


def test_markdown_escapes_every_name(report) -> None:
    markdown_it = pytest.importorskip("markdown_it")
    reader = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table")

    @FEWER
    @given(NAMES)
    @example("-")
    @example("+ 1")
    @example("1.")
    @example("12) a")
    @example("=")
    def check(name: str) -> None:
        renamed = named(report, name)
        tokens = reader.parse(renamed.to_markdown())
        pieces = [piece for token in tokens for piece in token.children or [token]]
        assert {piece.type for piece in pieces} <= {
            *("text", "strong_open", "strong_close", "inline", "text_special"),
            *("heading_open", "heading_close", "paragraph_open", "paragraph_close"),
            *("bullet_list_open", "bullet_list_close"),
            *("list_item_open", "list_item_close", "table_open", "table_close"),
            *("thead_open", "thead_close", "tbody_open", "tbody_close"),
            *("tr_open", "tr_close", "th_open", "th_close", "td_open", "td_close"),
        }
        cells = [
            "".join(piece.content for piece in token.children)
            for before, token in pairwise(tokens)
            if before.type == "td_open"
        ]
        assert plain(f"{name} 0") in cells
        assert len(tokens) == len(reader.parse(named(report, "n").to_markdown()))

    check()


def test_a_terminal_shows_every_name_as_it_is(report) -> None:
    console = pytest.importorskip("rich.console")

    @FEWER
    @given(NAMES)
    def check(name: str) -> None:
        target = io.StringIO()
        console.Console(file=target, width=2000, color_system=None).print(
            named(report, name)
        )
        shown = " ".join(target.getvalue().split())
        assert plain(f"by the rule '{name}'.") in shown
        assert all(char.isprintable() for char in shown)

    check()


def test_a_terminal_of_80_columns_shows_every_figure(report) -> None:
    console = pytest.importorskip("rich.console")
    target = io.StringIO()
    console.Console(file=target, width=80, color_system=None).print(report)
    words = target.getvalue().split()
    for grid in tables(report):
        for row in grid.rows:
            assert set(row[len(grid.words) :]) <= {*words, *map(str, row)}
            figures = [cell.split()[0] for cell in row[len(grid.words) :]]
            assert set(figures) <= set(words)


def test_a_terminal_of_80_columns_has_room_for_the_names_of_jobs(report) -> None:
    console = pytest.importorskip("rich.console")
    figures = dict.fromkeys(TaskPromise.model_fields, 0) | {"jobs": 1}
    figures |= {"slopes": (), "log_wealth": ()}
    shared = TaskPromise.model_construct(**figures)
    first = report.certificates[0].model_copy(update={"promise": shared})
    assert "of 'audit' so far, in 1 job " in first.claim
    (grid,) = (g for g in tables(summed(first)) if g.caption.startswith("One "))
    target = io.StringIO()
    console.Console(file=target, width=80, color_system=None).print(summed(first))
    below = target.getvalue().split(grid.caption)[1]
    assert f" audit ({first.id[:8]})" in below


def test_a_shadow_says_what_was_answered_and_would_have_been_saved(report) -> None:
    shadow = report.shadows[0]
    alone = Report(spend=shadow.spend, served={}, certificates=(), shadows=(shadow,))
    assert summary(alone) == (
        "Shadow mode: the reference answered all of 300 items; "
        f"about {usd(shadow.saved)} USD would have been saved."
    )


def test_a_job_that_asked_no_candidate_says_why(drive, tiers, models) -> None:
    session = BatchSession(10, tiers(2), Guarantee(0.1, 0.9), min_saving=0.05)
    small = summed(drive(session, models(10, 0.0, 0.2)).certificate)
    (why,) = untried(small)
    assert "min_saving" in why
    for form in (str(small), small.to_markdown().replace("\\", ""), small.to_html()):
        assert "No candidate was asked" in form


def test_json_holds_everything(report) -> None:
    read = json.loads(report.to_json())
    assert (read["cost"], read["saved"]) == (report.cost, report.saved)
    assert Report.model_validate_json(report.to_json()) == report


# -- pictures ----------------------------------------------------------------------


def test_the_bars_are_the_money_and_the_answers(report) -> None:
    bars = report.plot("cost").axes[0].patches
    alone, *paid = [bar.get_width() for bar in bars]
    reference = report.reference_only_cost
    assert alone == 1
    assert sum(paid) == pytest.approx(report.compared_cost / reference)
    picture = report.plot("items")
    assert sum(bar.get_width() for bar in picture.axes[0].patches) == pytest.approx(3)
    assert "audit" in [text.get_text() for text in picture.axes[0].texts]


def test_the_audits_path_ends_where_draws_suffice(report) -> None:
    (test, *_) = [t for t in report.certificates[0].tests if t.accepted]
    enough, path, ending = report.plot("evidence", which=0).axes[0].lines
    draws, errors = path.get_data()
    assert list(draws[1:-1]) == [n for n in test.errors if n <= test.accepted]
    assert (draws[-1], errors[-1]) == (test.accepted, len(draws) - 2)
    boundary = dict(zip(*reversed(enough.get_data()), strict=True))
    assert boundary[errors[-1]] == draws[-1] == ending.get_xdata()[0]


def test_what_profiling_saw_is_drawn_beside_the_promise(report) -> None:
    axes = report.plot("evidence", which=1).axes[0]
    points = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    seen = report.certificates[1].evidence
    assert points == [pytest.approx(100 * e.errors / e.draws) for e in seen]
    for (low, high), point in zip(
        (line.get_xdata() for line in axes.lines[:-1:2]), points, strict=True
    ):
        assert low <= point <= high
    bad = seen[1]
    ends = beta.ppf(
        [0.025, 0.975],
        [bad.errors, bad.errors + 1],
        [bad.draws - bad.errors + 1, bad.draws - bad.errors],
    )
    assert axes.lines[2].get_xdata() == pytest.approx(list(100 * ends))
    assert list(axes.lines[-1].get_xdata()) == [10, 10]


def test_a_streams_history_is_drawn_to_its_end(report) -> None:
    state = report.streams[0]
    top, below = report.plot("stream").axes
    promise, proof = top.lines
    assert promise.get_xydata()[-1].tolist() == [state.answered, state.allowed]
    assert proof.get_xydata()[-1].tolist() == [state.answered, state.possible_misses]
    assert len(proof.get_xdata()) == len(state.history) + 1
    share = below.lines[0].get_ydata()[-1]
    assert share == pytest.approx(100 * state.cost / state.reference_only_cost)


@pytest.mark.parametrize(
    ("kind", "which", "hint"),
    [
        ("pie", -1, "choose one of cost, items, evidence, stream, outlook"),
        ("outlook", 1, "there are 1 estimates"),
        ("evidence", 2, "there are 2 batches"),
        ("stream", -2, "there are 1 streams"),
    ],
)
def test_a_picture_that_there_is_not_is_an_error(report, kind, which, hint) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        report.plot(kind, which=which)


def test_what_jobs_of_other_sizes_would_save_is_said_and_drawn(report) -> None:
    (expected,) = report.estimates
    sizes, choices = outlook_tables(report)
    assert [row[1] for row in sizes.rows] == ["50", "100", "300", "1,000"]
    assert sizes.rows[2][2] == whole_percent(expected.saved_share.mean)
    assert [row[1] for row in choices.rows] == ["20 %"]
    picture = report.plot("outlook")
    line = picture.axes[0].lines[0]
    assert line.get_xdata().tolist() == [50, 100, 300, 1_000]
    by_size = expected.by_size | {300: expected.saved_share}
    saved = [100 * by_size[size].mean for size in (50, 100, 300, 1_000)]
    assert line.get_ydata().tolist() == pytest.approx(saved)
    assert picture.axes[0].get_xscale() == "log"
    band = picture.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(100 * min(s.low for s in by_size.values()))
    assert band.max() == pytest.approx(100 * max(s.high for s in by_size.values()))
    (said,) = expectations(report)
    for words in (said, picture.alt_text):
        assert f"It pays from about {expected.pays_from:,} items on" in words
    assert said in str(report)


def test_one_size_makes_no_curve(report) -> None:
    alone = report.estimates[0].model_copy(update={"by_size": {}, "choices": ()})
    small = report.model_copy(update={"estimates": (alone,)})
    with pytest.raises(InvalidInputError, match="no other sizes"):
        small.plot("outlook")
    assert small.to_html().count("<svg") == report.to_html().count("<svg") - 1


def test_costs_by_strategy_and_share_are_drawn() -> None:
    models = Simulation(400, "big", {"small": 0.99}, {"big": 1.0, "small": 0.01})
    results = [
        replay(models, Guarantee(share), strategy=name, trials=1)
        for name in ("reference", "audit")
        for share in (0.1, 0.05)
    ]
    picture = plot_costs(results)
    reference, audit, floor = picture.axes[0].lines
    assert list(reference.get_ydata()) == [100, 100]
    assert list(audit.get_ydata()) == [100 * r.cost_ratio for r in results[:1:-1]]
    assert list(floor.get_ydata()) == [100 * r.cost_floor for r in results[:1:-1]]
    ticks = [tick.get_text() for tick in picture.axes[0].get_xticklabels()]
    assert ticks == ["5 %", "10 %"]
    with pytest.raises(InvalidInputError, match="replay"):
        plot_costs([])


def test_no_name_is_left_out_of_a_legend(report) -> None:
    names = {"big": "_hidden", "c1": "$x^2$", "c2": "c2"}
    certificate, *_ = report.certificates
    served = {names[name]: count + 1 for name, count in certificate.served.items()}
    picture = summed(
        certificate.model_copy(
            update={"served": served, "spend": dict.fromkeys(served, Spend())}
        )
    ).plot("items")
    (legend,) = picture.legends
    shown = [text.get_text().strip() for text in legend.get_texts()]
    assert shown == list(served)
    assert not any(text.get_parse_math() for text in legend.get_texts())


@pytest.mark.filterwarnings("error")
def test_pictures_keep_names_as_words_and_follow_the_theme(report) -> None:
    picture = named(report, HOSTILE).plot("items")
    drawn = picture.to_svg()
    texts = Page(drawn)
    assert plain(HOSTILE)[:20] in texts.text
    assert texts.names <= DRAWN
    assert picture.to_svg() == drawn  # no clock, no chance
    outside = re.sub(r"<style>.*?</style>|var\(--smart-\w+,#\w+\)", "", drawn)
    assert not re.findall("|".join(theme.LIGHT.values()), outside)
    for colours in (theme.LIGHT, theme.DARK):
        assert theme.css(colours) in drawn


def luminance(colour: str) -> float:
    """Relative luminance of a colour, as WCAG 2.2 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_contrasts_are_those_of_wcag_aa(colours) -> None:
    assert colours.keys() == theme.LIGHT.keys()
    for ground in ("paper", "panel"):
        for text in ("ink", "soft", "good", "bad"):
            assert contrast(colours[text], colours[ground]) >= 4.5
    for model in theme.MODELS:
        assert contrast(colours[model], colours["paper"]) >= 4.5
        assert contrast(colours["label"], colours[model]) >= 4.5
    for line in ("m1", "good", "m0"):
        assert contrast(colours[line], colours["area"]) >= 3


def test_what_is_estimated_is_marked_in_every_form() -> None:
    spend = {
        "big": Spend(calls=2, cost=10.0, estimated=2.5),
        "small": Spend(calls=2, cost=1.0),
    }
    served = {"big": 2, "small": 2}
    report = Report(spend=spend, served=served, certificates=())
    assert report.estimated == 2.5
    forms = [report.to_html(), report.to_markdown(), report._repr_html_()]
    for form in forms:
        text = form.replace("&nbsp;", " ").replace("\u00a0", " ")
        assert "2.50 USD of it estimated" in text
    assert all("hidden reasoning is not included" in form for form in forms[:2])
    assert "2.50 USD is estimated" in str(report)
    grid = models(report)
    place = grid.numbers.index("estimated") - len(grid.numbers)
    assert [row[place] for row in (*grid.rows, grid.total)] == [
        "2.50",
        "0.00",
        "2.50",
    ]
    plain_spend = {n: s.model_copy(update={"estimated": 0}) for n, s in spend.items()}
    plain_report = report.model_copy(update={"spend": plain_spend})
    assert "estimated" not in models(plain_report).numbers
    assert notes(plain_report) == notes(report)[1:]
