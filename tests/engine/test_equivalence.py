"""When two answers mean the same."""

from __future__ import annotations

import functools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from smart_engine import (
    Exact,
    InvalidInputError,
    Json,
    Judged,
    Label,
    Normalized,
    Number,
    UnparseableAnswerError,
)
from smart_engine.equivalence import as_equivalence


class Point(BaseModel):
    """A place."""

    x: int
    y: int = 0


SPAM = Label(["spam", "not spam", "Unsure"])


def equal(rule, left, right) -> bool:
    """Parse both answers and compare them, as a session does."""
    return rule.same(rule.parse(left), rule.parse(right))


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [("a", "a", True), ("a", "A", False), (1, 1.0, True), (None, None, True)],
)
def test_exact_is_python_equality(left, right, same) -> None:
    assert equal(Exact(), left, right) is same


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("  Spam!", "spam"),
        ("**Yes.**", "yes"),
        ("a\n\t b", "A B"),
        ("ﬁne", "fine"),
        ("STRASSE", "straße"),
        ("“no”"[1:-1], "No"),
        ("<spam>", "Spam"),
        ("(.5)", ".5."),
        ("x²", "x^2"),
        ("H₂O", "h2o"),
        (42, "42"),
    ],
)
def test_normalized_ignores_case_form_space_and_outer_marks(left, right) -> None:
    assert equal(Normalized(), left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1.5", "15"),
        ("a b", "ab"),
        ("don't", "dont"),
        ("", "x"),
        (".5", "5"),
        ("< 5", "> 5"),
        ("?", "!"),
        ("<", ">"),
        ("[]", "..."),
        ("10⁶", "106"),
    ],
)
def test_normalized_keeps_what_lies_inside(left, right) -> None:
    assert not equal(Normalized(), left, right)


@given(st.text())
def test_normalized_is_stable(text: str) -> None:
    assert equal(Normalized(), text, text)
    assert equal(Normalized(), f" \n{text}x. ", f"{text}x")


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("spam", "spam"),
        ("SPAM.", "spam"),
        ("This is **Spam**.", "spam"),
        ("Answer: `not spam`", "not spam"),
        ("It is not spam, I think", "not spam"),
        ("Not  Spam", "not spam"),
        ("I am unsure about it", "unsure"),
        ("spam spam spam", "spam"),
        ("\uff33\uff30\uff21\uff2d", "spam"),
        ("[spam]", "spam"),
        ("Label:\n\nspam\n", "spam"),
        ("No. It is spam, not ham", "spam"),
        ("I do not know, but unsure fits", "unsure"),
    ],
)
def test_label_finds_the_one_label_in_a_sentence(answer: str, label: str) -> None:
    assert SPAM.parse(answer) == label


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("", "no label"),
        ("ham", "no label"),
        ("spammer", "no label"),
        ("antispam", "no label"),
        (None, "no label"),
        ("spam or not spam", "several labels"),
        ("unsure, maybe spam", "several labels"),
        ("This isn't spam", "negated"),
        ("It is certainly no spam.", "negated"),
        ("I would never call it unsure", "negated"),
        ("non-spam", "no label"),
        ("spam-free", "no label"),
    ],
)
def test_label_refuses_none_and_several(answer, problem) -> None:
    with pytest.raises(UnparseableAnswerError, match=problem):
        SPAM.parse(answer)


@pytest.mark.parametrize(
    ("labels", "answer", "label"),
    [
        (["C", "C#x"], "It is C#x code", "C#x"),
        (["да", "нет"], "Мой ответ: Да", "да"),
        (["大", "小"], "大", "大"),
        ([1, 2], "the answer is 2", "2"),
        (["ünsicher", "sicher"], "ÜNSICHER", "ünsicher"),
        (["yes", "no"], "No, it is not.", "no"),
        (["A", "A+"], "Grade: A+", "A+"),
        (["-1", "0", "1"], "It is -1.", "-1"),
    ],
)
def test_labels_of_any_script(labels, answer, label) -> None:
    rule = Label(labels)
    assert rule.parse(answer) == rule.parse(label)


@pytest.mark.parametrize(
    ("labels", "answer"),
    [
        (["A", "B"], "A+"),
        (["0", "1"], "1.5"),
        (["0", "1"], "-1"),
        (["1", "2", "3"], "2/10"),
    ],
)
def test_label_does_not_cut_one_out_of_something_longer(labels, answer) -> None:
    with pytest.raises(UnparseableAnswerError, match="no label"):
        Label(labels).parse(answer)


def test_label_tells_labels_apart_and_names_them() -> None:
    assert equal(SPAM, "Spam!", "it's spam")
    assert not equal(SPAM, "spam", "not spam")
    assert SPAM.name == "Label(['spam', 'not spam', 'unsure'])"


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("42", 42),
        ("so the answer is 42.", 42),
        ("1,234.5", 1234.5),
        ("12,345,678", 12345678),
        ("$1,000", 1000),
        ("1, 2, 3", 3),
        ("-7", -7),
        ("x = -7.25", -7.25),
        ("3-5", 5),
        ("between 10 and 20", 20),
        ("6.02e23", 6.02e23),
        ("1E-3", 0.001),
        (".5", 0.5),
        ("-$5", -5),
        ("it is \u20137", -7),
        ("1 234 567.5", 1234567.5),
        ("5\u202f000", 5000),
        ("1'000", 1000),
        ("in 2024 people paid 500", 500),
        ("5 million", 5_000_000),
        ("$1.5bn", 1_500_000_000),
        ("20k", 20_000),
        ("12 kg", 12),
        ("5 mm", 5),
        ("Step 2: 8", 8),
        ("**12**%", 12),
        ("4 items: 8", 8),
        (3, 3),
        (2.5, 2.5),
    ],
)
def test_number_reads_the_last_number(answer, number: float) -> None:
    assert Number().parse(answer) == number


@pytest.mark.parametrize(
    "answer",
    ["", "none", "-", ".", None, "NaN", float("nan"), float("inf"), "1e999", 10**400],
)
def test_number_refuses_answers_without_one(answer) -> None:
    with pytest.raises(UnparseableAnswerError, match=r"no (finite )?number"):
        Number().parse(answer)


@pytest.mark.parametrize(
    "answer",
    [
        *("3,14", "1.234,56", "1.234.567", "1,23,456", "1234,567", "1,234 567"),
        *("1/2", "3 / 4", r"\frac{1}{2}", "5 1/2", "5½", "10:30", "5'10"),
        *("1.5 × 10^3", "10^{6}", "10⁶", "2**3", "2 * 3", "√2", r"\sqrt{2}", "2π"),
        *([9, 2], {"a": 5, "b": 2}, True),
    ],
    ids=str,
)
def test_number_refuses_what_is_part_of_a_longer_one(answer) -> None:
    with pytest.raises(UnparseableAnswerError, match="number"):
        Number().parse(answer)


@pytest.mark.parametrize(
    ("rule", "left", "right", "same"),
    [
        (Number(), "2", "2.0", True),
        (Number(), "12345678901234567", "12345678901234568", False),
        (Number(), 2**60, 2**60 + 1, False),
        (Number(), 2**60 + 1, "1152921504606846976.0", False),
        (Number(absolute=1), 10**300, "1e300", True),
        (Number(), "2", "2.0001", False),
        (Number(absolute=0.5), 1, 1.5, True),
        (Number(absolute=0.5), 1, 1.6, False),
        (Number(relative=0.1), 100, 90, True),
        (Number(relative=0.1), 100, 89, False),
        (Number(relative=0.1), -100, -90, True),
        (Number(relative=0.1), 100, -100, False),
        (Number(absolute=1, relative=0.1), 0, 1, True),
    ],
)
def test_number_tolerances(rule, left, right, same) -> None:
    assert equal(rule, left, right) is same
    assert equal(rule, right, left) is same


@given(st.integers(-(10**12), 10**12))
def test_number_reads_integers_with_and_without_commas(value: int) -> None:
    assert Number().parse(f"It is {value:,}.") == value
    assert Number().parse(f"It is {value}.") == value


def test_plain_functions_will_do() -> None:
    def first_letter(left: str, right: str) -> bool:
        return left[:1] == right[:1]

    rule = as_equivalence(first_letter)
    assert isinstance(rule, Judged)
    assert rule.same("yes", "yep") is True
    assert rule.name.endswith("first_letter")
    assert "lambda" in as_equivalence(lambda left, right: left == right).name
    assert as_equivalence(functools.partial(first_letter)).same("a", "b") is False
    assert as_equivalence(lambda left, right: [left == right]).same(1, 2) is True


def test_equivalences_are_taken_as_they_are() -> None:
    for rule in (Exact(), Normalized(), SPAM, Number(), Judged(max)):
        assert as_equivalence(rule) is rule


@pytest.mark.parametrize("given_rule", ["exact", None, 0.9, ["spam", "ham"]])
def test_anything_else_is_refused(given_rule) -> None:
    with pytest.raises(InvalidInputError, match=r"Normalized\(\)") as error:
        as_equivalence(given_rule)
    assert error.value.field == "equivalence"


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ('{"a": 1, "b": [1, 2]}', '{ "b": [1.0, 2], "a": 1 }', True),
        ('```json\n{"a": 1}\n```', '{"a": 1}', True),
        ("```\n[1]\n```\n", " [1]", True),
        ('{"a": {"b": null, "c": "é"}}', '{"a": {"c": "\\u00e9", "b": null}}', True),
        ({"x": 1, "y": 0}, Point(x=1), True),
        ("[1, 2]", "[2, 1]", False),
        ('{"a": 1}', '{"a": true}', False),
        ('{"a": 1}', '{"a": "1"}', False),
        ('{"a": null}', "{}", False),
        ('{"a": "x"}', '{"a": "X"}', False),
    ],
)
def test_json_is_compared_as_json(left, right, same) -> None:
    assert equal(Json(), left, right) is same


@pytest.mark.parametrize(
    "answer",
    [
        *("", "spam", "{'a': 1}", '{"a": 1', object()),
        *('{"a": 1, "a": 2}', '[{"b": {"a": 1, "a": 1}}]', "1e400", "-1e400"),
    ],
)
def test_what_is_no_json_cannot_be_read(answer) -> None:
    with pytest.raises(UnparseableAnswerError, match="no JSON"):
        Json().parse(answer)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


def shuffled(value, rng):
    """Return the same value with the keys of its objects in another order."""
    if isinstance(value, list):
        return [shuffled(part, rng) for part in value]
    if isinstance(value, dict):
        keys = list(value)
        rng.shuffle(keys)
        return {key: shuffled(value[key], rng) for key in keys}
    return value


@given(VALUES, VALUES, st.randoms())
def test_json_does_not_see_the_order_of_keys_and_nothing_else(left, right, rng) -> None:
    again = json.dumps(shuffled(left, rng), indent=rng.choice([None, 2]))
    assert equal(Json(), json.dumps(left), again)
    expected = json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
    assert equal(Json(), json.dumps(left), json.dumps(right)) is expected
