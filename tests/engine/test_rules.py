"""Dates, lists, fields, embeddings, and rules made of rules."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smart_engine import (
    BatchSession,
    Date,
    Exact,
    InvalidInputError,
    Items,
    Json,
    Judged,
    Label,
    Normalized,
    Number,
    Outcome,
    Price,
    Rule,
    Similar,
    SmartError,
    Tier,
    UnparseableAnswerError,
    agree,
)
from smart_engine.equivalence import as_equivalence
from smart_engine.equivalence.similar import EmbeddingError

FREE = Price.free()


def letters(text: str) -> list[float]:
    """Embed a text by counting its letters."""
    return [1.0, *(float(text.count(letter)) for letter in "abc")]


ORDER = Json(
    fields={
        "amount": Number(absolute=0.01),
        "date": Date(),
        "tags": Items(),
        "to": Json(fields={"city": Normalized()}, ignore=["zip"]),
    },
    ignore=["id"],
)
RULES = [
    Exact(),
    Normalized(),
    Label(["spam", "ham"]),
    Number(),
    Number(absolute=0.5, relative=0.1),
    Date(),
    Date(formats=["%d/%m/%Y"]),
    Items(),
    Items(Number(absolute=1), ordered=True),
    Items(Number(absolute=1)),
    Json(),
    ORDER,
    Judged(lambda left, right: left[:1] == right[:1]),
    Similar(letters, price=FREE),
    Number(absolute=1) | Label(["none", "unclear"]),
    Number(absolute=1) & Normalized(),
    (Date() | Number()) & Normalized() | Json(),
]
WORDS = ["spam", "ham", "none", "5", "-4.5", "1e999", "9" * 400, "2024-01-31", "NaN"]
WORDS += ["31 Jan 2024", "2024-02-31", "0000-00-00", "a, b", "[1, 2]", '{"a": 1}', ";"]
WORDS += ['{"amount": 1, "date": "2024-01-31", "tags": "x", "to": {}}', "[" * 9999]
TEXTS = st.one_of(
    st.sampled_from(WORDS),
    st.lists(st.sampled_from(WORDS[:-1]), max_size=3).map(" ".join),
    st.text(max_size=30),
    st.text(alphabet="0123456789.,-+eE/: TZ", max_size=20),
    st.text(alphabet='{}[]",:0123456789abtrue\n', max_size=20),
)
VALUES = TEXTS | st.none() | st.booleans() | st.integers() | st.floats() | st.dates()


# -- dates ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        "2024-01-31",
        "2024-01-31T00:00:00",
        "31 January 2024",
        "31. Jan 2024",
        "31st of January, 2024",
        "January 31, 2024.",
        "JAN. 31 2024",
        "2024/1/31",
        "31.01.2024",
        "Reasoning: see the invoice.\nDate: 2024-01-31 (Wednesday)",
        date(2024, 1, 31),
        datetime(2024, 1, 31),  # noqa: DTZ001 - a day
    ],
)
def test_a_day_is_read_however_it_is_written(answer) -> None:
    assert Date().parse(answer) == "2024-01-31"


@pytest.mark.parametrize(
    ("answer", "moment"),
    [
        ("2024-01-31T10:30", "2024-01-31T10:30:00"),
        ("2024-01-31 10:30:00Z", "2024-01-31T10:30:00+00:00"),
        ("2024-01-31 10:30:00 z", "2024-01-31T10:30:00+00:00"),
        ("2024-01-31T10:30:00+02:00", "2024-01-31T08:30:00+00:00"),
        ("2024-01-31T23:30:00-0200", "2024-02-01T01:30:00+00:00"),
        ("2024-01-31T10:30:00.250", "2024-01-31T10:30:00.250000"),
        ("2024-01-31T10:30:00,25", "2024-01-31T10:30:00.250000"),
        ("2024-01-31 10:30 UTC", "2024-01-31T10:30:00+00:00"),
        ("Wednesday, 2024-01-31 10:30", "2024-01-31T10:30:00"),
        ("31 January 2024, 15:00", "2024-01-31T15:00:00"),
        (datetime(2024, 1, 31, 1, tzinfo=UTC), "2024-01-31T01:00:00+00:00"),
    ],
)
def test_a_moment_is_taken_to_utc(answer, moment) -> None:
    assert Date().parse(answer) == moment


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("", "no date"),
        ("soon", "no date"),
        ("01/02/2024", "day or month first"),
        ("01.02.2024", "day or month first"),
        ("2024-1", "no date"),
        ("2024-01-31T10", "no date"),
        ("12024-01-31", "no date"),
        ("2024-02-30", "no such date"),
        ("30 February 2024", "no such date"),
        ("0001-01-01T00:00+05:00", "no such date"),
        ("The invoice is due on 2024-01-31.", "no date"),
        ("2024-01-31 (January 31, 2024)", "no date"),
        ("2024-01-31 10:30 on a Wednesday", "no date"),
        ("Thursday, 2024-01-31", "no date"),
        ("from 2024-01-31 to 2024-02-01", "no date"),
        ("2024-01-31 9:30", "no date"),
        ("2024-01-31 25:30", "no such date"),
        ("2024-01-31 10:30 PM", "no date"),
        ("2024-01-31 10:30 EST", "no date"),
        ("2024-01-31T10:30+2:00", "no date"),
        ("January 31, 2024 at 5 p.m.", "no date"),
        (datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))), "no such date"),
        (None, "no text"),
    ],
)
def test_what_is_no_one_date_cannot_be_read(answer, problem) -> None:
    with pytest.raises(UnparseableAnswerError, match=problem):
        Date().parse(answer)


def test_formats_of_the_user_come_first() -> None:
    assert Date(formats=["%d/%m/%Y"]).parse("01/02/2024.") == "2024-02-01"
    assert Date(formats=["%m/%d/%Y"]).parse("01/02/2024") == "2024-01-02"
    assert Date(formats=["%Y-%d-%m"]).parse("2024-02-01") == "2024-01-02"
    both = Date(formats=["%m/%d/%Y", "%d/%m/%Y"])
    assert both.parse("31/01/2024") == "2024-01-31"
    assert both.name == "Date(formats=['%m/%d/%Y', '%d/%m/%Y'])"


@given(st.datetimes(datetime(1000, 1, 2), datetime(9999, 12, 30)), st.integers(-14, 14))  # noqa: DTZ001 - the bounds of days
def test_every_date_is_read_back(moment, hours) -> None:
    rule = Date()
    there = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
    assert rule.parse(there.isoformat()) == there.astimezone(UTC).isoformat()
    day = moment.date()
    forms = ["%d %B %Y", "%b %d, %Y", "%Y/%m/%d", "%a %d.%m.%Y", "%Y-%m-%d", "%Y%m%d"]
    for form in forms if day.day > 12 or day.day == day.month else forms[:3]:
        assert rule.parse(f"It is {day.strftime(form)}.") == day.isoformat()


# -- lists ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("red, green", "Green, red.", True),
        ("red; green, dark", "green, dark; red", True),
        ("- red\n- green", '["green", "red"]', True),
        ("1. red\n2) green\n", ["Green", "Red"], True),
        ("* red", "red", True),
        ('```json\n["red"]\n```', "Red", True),
        ("[]", "[ ]", True),
        ("red, red", "red", False),
        ("red, red, green", "red, green, green", False),
        ("red", "red, green", False),
    ],
)
def test_lists_are_compared_in_any_order(left, right, same) -> None:
    assert agree(Items(), left, right) is same


def test_order_separator_and_the_rule_of_items_can_be_set() -> None:
    assert not agree(Items(ordered=True), "a, b", "b, a")
    assert agree(Items(ordered=True), "a, b", "A; B")
    assert agree(Items(separator="|"), "a, b|c", "C | A, B")
    numbers = Items(Number(absolute=1))
    # 1 goes with 0 or 2, 3 with 2 only: taking the first that fits would fail.
    assert agree(numbers, "[1, 3]", "[2, 0]")
    assert agree(numbers, "1, 3", "2, 4")
    assert not agree(numbers, "1, 3", "2, 5")
    assert not agree(numbers, "1, 3", "1, 3, 3")
    assert agree(Items(Number(absolute=1), ordered=True), "1, 3", "2, 4")
    assert not agree(Items(Number(absolute=1), ordered=True), "1, 3", "4, 2")
    with pytest.raises(UnparseableAnswerError, match="no number"):
        numbers.parse("1, many")
    with pytest.raises(UnparseableAnswerError, match="no items"):
        Items().parse(" , ")
    for split in ("a, , b", "1,000", "a, b and c", '"a, b"', "- a\n  - b", "a; b | c"):
        with pytest.raises(UnparseableAnswerError, match="no items"):
            Items().parse(split)
    for typed in ([None, "a"], [True, "a"], [{"a": 1}], [["a"]], "[true]"):
        with pytest.raises(UnparseableAnswerError):
            Items().parse(typed)
    with pytest.raises(UnparseableAnswerError, match="tell apart"):
        Items(Exact()).parse('[{"a": 1}]')
    assert agree(Items(Json()), '[{"a": 1}, 2]', '[2.0, {"a": 1}]')


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.randoms())
def test_any_order_is_the_same_list(numbers, rng) -> None:
    shuffled = rng.sample(numbers, len(numbers))
    for rule in (Items(), Items(Number()), Items(Number(absolute=0.25))):
        assert agree(rule, numbers, ", ".join(map(str, shuffled)))
        assert not agree(rule, numbers, [*shuffled, 0])


# -- fields -----------------------------------------------------------------------

BOOKED = {
    "id": 1,
    "amount": 9.99,
    "date": "2024-01-31",
    "tags": ["a", "b"],
    "to": {"city": "Ulm", "zip": "1"},
    "note": "x",
}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"id": 2}, True),
        ({"amount": "9.995"}, True),
        ({"amount": "$9.99"}, False),
        ({"amount": 10.5}, False),
        ({"amount": None}, False),
        ({"amount": "a lot"}, False),
        ({"date": "Jan 31, 2024"}, True),
        ({"date": "2024-02-01"}, False),
        ({"tags": "B, a"}, True),
        ({"to": {"city": "ULM.", "zip": "2"}}, True),
        ({"to": {"city": "Ulm", "street": "A"}}, False),
        ({"to": {}}, False),
        ({"note": "X"}, False),
        ({"more": 1}, False),
    ],
)
def test_every_field_has_its_rule(change, same) -> None:
    assert agree(ORDER, BOOKED, {**BOOKED, **change}) is same
    assert agree(ORDER, {**BOOKED, **change}, BOOKED) is same


def test_what_a_rule_inside_costs_and_waits_for_the_outer_one_does() -> None:
    charges = Similar(letters, price=Price.per_call(0.1))
    waits = Similar(letters, price=FREE)
    for wrap in (Items, lambda rule: Json(fields={"a": rule, "b": Exact()})):
        for inner, told in ((charges, (True, True)), (waits, (False, True))):
            rule = wrap(inner)
            assert (rule.costs, rule.waits) == told
            assert (wrap(rule).costs, wrap(rule).waits) == told
        assert (wrap(Exact()).costs, wrap(Exact()).waits) == (False, False)


def test_missing_and_null_are_the_same_only_as_themselves() -> None:
    rule = Json(fields={"a": Number(absolute=1)})
    assert agree(rule, "{}", "{}")
    assert agree(rule, '{"a": null}', '{"a": null}')
    assert not agree(rule, '{"a": null}', "{}")
    assert not agree(rule, '{"a": 0}', '{"a": null}')
    with pytest.raises(UnparseableAnswerError, match="no JSON object"):
        rule.parse("[1]")


# -- embeddings -------------------------------------------------------------------


def test_near_texts_are_the_same_and_each_is_embedded_once() -> None:
    asked = []

    def embed(text: str) -> list[float]:
        asked.append(text)
        return [1.0, 0.0] if text.startswith("near") else [0.6, 0.8]

    rule = Similar(embed, threshold=0.6, price=FREE)
    assert agree(rule, "near one", "near two")
    assert agree(rule, "near one", "far")
    assert not agree(Similar(embed, 0.61, price=FREE), "near one", "far")
    assert sorted(asked[:3]) == ["far", "near one", "near two"]
    assert len(asked) == 5
    assert agree(rule, "Never embedded.", "never embedded")
    assert len(asked) == 5
    assert rule.name.endswith("embed, threshold=0.6)")
    assert (
        Similar(embed, model="m-3", price=FREE).name == "Similar(m-3, threshold=0.85)"
    )
    with pytest.raises(UnparseableAnswerError, match="empty"):
        rule.parse(" ")


def test_many_texts_are_embedded_in_one_call() -> None:
    asked = []

    def embed(texts: list[str]) -> list[list[float]]:
        asked.append(list(texts))
        return [letters(text) for text in texts]

    rule = Similar(embed, many=True, price=FREE)
    assert agree(rule, "aab", "aba")
    assert agree(rule, "aab", "baa")
    assert asked == [["aab", "aba"], ["baa"]]


@pytest.mark.parametrize(
    "vector", [None, "x", [], [0.0, 0.0], [float("nan")], [[1.0]], [1e400], ["a"]]
)
def test_what_is_no_vector_is_told_and_counts_as_different(vector) -> None:
    rule = Similar(lambda _: vector, price=FREE)
    with pytest.raises(EmbeddingError, match="no vector"):
        rule.same("a", "b")
    with pytest.warns(UserWarning, match="EmbeddingError: the answers count as diff"):
        assert not agree(rule, "a", "b")


def test_vectors_must_fit_each_other() -> None:
    with pytest.raises(EmbeddingError, match="vectors of 1 and of 2"):
        Similar(lambda text: [1.0] * len(text), price=FREE).same("a", "bb")
    with pytest.raises(EmbeddingError, match="1 vectors of 2 texts"):
        Similar(lambda _: [[1.0]], many=True, price=FREE).same("a", "b")


def test_old_embeddings_are_forgotten(monkeypatch) -> None:
    monkeypatch.setattr("smart_engine.equivalence.similar._CACHE_SIZE", 10)
    rule = Similar(letters, price=FREE)
    for number in range(100):
        agree(rule, f"a{number}", f"b{number}")
    assert len(rule._cache) == 10


# -- laws -------------------------------------------------------------------------


def test_names_say_what_is_written() -> None:
    assert [rule.name for rule in RULES[:6]] == [
        "Exact()",
        "Normalized()",
        "Label(['spam', 'ham'])",
        "Number()",
        "Number(absolute=0.5, relative=0.1)",
        "Date()",
    ]
    assert RULES[9].name == "Items(Number(absolute=1))"
    assert ORDER.name == (
        "Json(fields={'amount': Number(absolute=0.01), 'date': Date(), 'tags': "
        "Items(Normalized()), 'to': Json(fields={'city': Normalized()}, "
        "ignore=['zip'])}, ignore=['id'])"
    )
    assert RULES[-1].name == "(Date() | Number()) & Normalized() | Json()"
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert (max | Exact()).name == "function max | Exact()"
    assert (max & Exact()).name == "function max & Exact()"


def test_a_rule_of_ones_own_is_versioned() -> None:
    class Length(Rule):
        version = 2

        def parse(self, answer):
            return len(answer)

        def same(self, left, right):
            return left == right

    assert Length().name == "Length() v2"
    assert (Length() | Exact()).name == "Length() v2 | Exact()"
    assert agree(Length() & (lambda a, b: a[0] == b[0]), "ab", "ac")
    assert not Length().reads_text
    with pytest.raises(InvalidInputError, match=r"class: write Length\(…\)"):
        as_equivalence(Length)


def test_names_reach_the_certificate() -> None:
    rule = Number(absolute=0.01) | Label(["none", "unclear"])
    tiers = [Tier("big", role="reference"), Tier("small")]
    session = BatchSession(10, tiers, equivalence=rule)
    while calls := session.next_calls():
        for call in calls:
            session.record(call, Outcome("1", 1.0))
    expected = "Number(absolute=0.01) | Label(['none', 'unclear'])"
    assert session.certificate.equivalence == expected


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@given(data=st.data())
def test_any_answer_is_read_or_refused_and_a_rule_is_reflexive_and_symmetric(
    rule, data
) -> None:
    check_laws(rule, data.draw(VALUES), data.draw(VALUES))


def check_laws(rule, left, right) -> None:
    """Parse raises clear errors only; same is reflexive, symmetric, and == if keyed."""
    read, told = [], []
    for answer in (left, right):
        try:
            read.append(rule.parse(answer))
        except SmartError as error:
            told.append(str(error))
    assert all(len(problem) < 600 and "\n" not in problem for problem in told)
    if isinstance(rule, Judged):
        return  # a user's own
    for one in read:
        if one == one:
            assert rule.same(one, one)
    if len(read) == 2:
        one, other = read
        assert rule.same(one, other) == rule.same(other, one)
        if rule.keyed and one == one and other == other:
            assert rule.same(one, other) == (one == other)


LEAVES = st.sampled_from([*RULES[:6], *RULES[7:12]])


@given(LEAVES, LEAVES, VALUES, VALUES)
def test_either_and_both_are_what_they_say(one, other, left, right) -> None:
    either, both = one | other, one & other
    says = [agree(rule, left, right) for rule in (one, other)]
    assert agree(either, left, right) == any(says)
    assert agree(both, left, right) == all(says)
    assert agree(other | one, left, right) == any(says)
    assert agree(other & one, left, right) == all(says)
    reads = [readable(rule, left) for rule in (one, other)]
    assert readable(either, left) == any(reads)
    assert readable(both, left) == all(reads)
    assert not either.keyed
    assert both.keyed == (one.keyed and other.keyed)
    assert either.reads_text == (one.reads_text and other.reads_text)


def readable(rule, answer) -> bool:
    """Whether a rule reads an answer."""
    try:
        rule.parse(answer)
    except UnparseableAnswerError:
        return False
    return True


def test_one_rule_that_fails_does_not_silence_the_other() -> None:
    def broken(left, right):
        raise ZeroDivisionError

    assert agree(broken | Exact(), "a", "a")
    with pytest.warns(UserWarning, match="raised ZeroDivisionError"):
        assert not agree(broken | Exact(), "a", "b")


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule is not RULES[12]])
def test_rules_can_be_copied_and_pickled(rule) -> None:
    for again in (copy.deepcopy(rule), pickle.loads(pickle.dumps(rule))):  # noqa: S301 - our own
        assert again.name == rule.name
        assert again == rule


@pytest.mark.parametrize(
    ("make", "field", "hint"),
    [
        (lambda: Date(formats="%d/%m/%Y"), "Date.formats", "list formats"),
        (lambda: Date(formats=["%d/%m"]), "Date.formats", "day, month and year"),
        (lambda: Date(formats=["%d/%m/%Y %Z"]), "Date.formats", "day, month and year"),
        (lambda: Date(formats=["%Q"]), "Date.formats", "day, month and year"),
        (lambda: Date(formats=[7]), "Date.formats", "day, month and year"),
        (lambda: Items("a"), "Items.inner", "Normalized()"),
        (lambda: Items(Number), "Items.inner", "write Number(…)"),
        (lambda: Items(ordered="yes"), "Items.ordered", "True or False"),
        (lambda: Items(separator=""), "Items.separator", "leave it out"),
        (lambda: Json(fields=["a"]), "Json.fields", "a rule per field"),
        (lambda: Json(fields={1: Exact()}), "Json.fields", "a rule per field"),
        (lambda: Json(fields={"a": 0.1}), "Json.fields['a']", "Number(...)"),
        (lambda: Json(ignore="id"), "Json.ignore", "list names"),
        (lambda: Json(fields={"a": max}, ignore=["a"]), "Json.ignore", "one of them"),
        (lambda: Similar("model"), "Similar.embed", "a function"),
        (lambda: Similar(letters, threshold=85), "Similar.threshold", "0.85"),
        (lambda: Similar(letters, threshold=True), "Similar.threshold", "0.85"),
        (lambda: Judged("x"), "Judged.judge", "two answers"),
        (lambda: Exact() | "x", "Either.right", "Normalized()"),
        (lambda: 0.5 & Exact(), "Both.left", "Normalized()"),
    ],
)
def test_bad_settings_are_refused_by_name(make, field, hint) -> None:
    with pytest.raises(InvalidInputError) as error:
        make()
    assert error.value.field == field
    assert hint in str(error.value)
    assert "\n" not in str(error.value)
