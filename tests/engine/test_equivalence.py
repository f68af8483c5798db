"""When two answers mean the same."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pairs import DIFFERENT, SAME
from pydantic import BaseModel, Field, SecretStr, field_serializer

from smart_engine import (
    Exact,
    InvalidInputError,
    Json,
    Judged,
    Label,
    Normalized,
    Number,
    UnparseableAnswerError,
    agree,
)
from smart_engine.equivalence import as_equivalence
from smart_engine.equivalence.kinds import calls_in_any_order


class Point(BaseModel):
    """A place."""

    x: int
    y: int = 0


class Hidden(BaseModel):
    """What it writes out is not what it holds."""

    secret: SecretStr = SecretStr("a")
    left_out: int = Field(default=0, exclude=True)
    rounded: float = 0.0
    renamed: str = Field(default="a", serialization_alias="b")

    @field_serializer("rounded")
    def _round(self, value: float) -> int:
        return round(value)


class Colour(Enum):
    """A value with a name."""

    RED = "red"


@dataclass
class Box:
    """Holds anything."""

    content: object


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


@pytest.mark.parametrize(("rule", "answer", "others"), SAME)
def test_what_users_expect_to_be_read_is_read(rule, answer, others) -> None:
    assert [o for o in others if not agree(rule, answer, o)] == []
    assert [o for o in others if not agree(rule, o, answer)] == []


@pytest.mark.parametrize(("rule", "answer", "others"), DIFFERENT)
def test_what_bears_on_an_answer_is_never_left_out(rule, answer, others) -> None:
    assert [o for o in others if agree(rule, answer, o)] == []
    assert [o for o in others if agree(rule, o, answer)] == []


def test_the_pairs_are_many() -> None:
    assert sum(len(others) for _, _, others in SAME) >= 150
    assert sum(len(others) for _, _, others in DIFFERENT) >= 390


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("  Spam.", "spam"),
        ("**Yes.**", "yes"),
        ("a\t\n B", "a\n b"),
        ("“no”"[1:-1], "No"),
        (42, "42"),
    ],
)
def test_normalized_ignores_case_form_space_and_wrappers(left, right) -> None:
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
        ("ﬁne", "fine"),
        ("STRASSE", "straße"),
        ("<spam>", "Spam"),
        ("(.5)", ".5."),
        ("x²", "x^2"),
        ("H₂O", "h2o"),
        ("a\n\t b", "A B"),
    ],
)
def test_normalized_keeps_all_else(left, right) -> None:
    assert not equal(Normalized(), left, right)


@given(st.text())
def test_normalized_is_stable(text: str) -> None:
    assert equal(Normalized(), text, text)
    assert equal(Normalized(), f"{text}x. ", f"{text}x")


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("spam", "spam"),
        ("SPAM.", "spam"),
        ("This is **Spam**", "spam"),
        ("Answer: `not spam`", "not spam"),
        ("It is not spam.", "not spam"),
        ("Not  Spam", "not spam"),
        ("\uff33\uff30\uff21\uff2d", "spam"),
        ("[spam]", "spam"),
        ("Label:\n\nspam\n", "spam"),
        ("It came by night. The answer is spam.", "spam"),
    ],
)
def test_label_reads_the_label_or_an_explicit_form(answer: str, label: str) -> None:
    assert SPAM.parse(answer) == label


@pytest.mark.parametrize(
    "answer",
    [
        *("", "ham", "spammer", "antispam", None, "spam or not spam", "spam spam"),
        *("unsure, maybe spam", "This isn't spam", "It is certainly no spam."),
        *("I would never call it unsure", "non-spam", "spam-free"),
        *("It is not spam, I think", "I am unsure about it", "No. It is spam, not ham"),
        "I do not know, but unsure fits",
    ],
)
def test_label_refuses_what_is_no_label(answer) -> None:
    with pytest.raises(UnparseableAnswerError, match=r"no (label|text)"):
        SPAM.parse(answer)


@pytest.mark.parametrize(
    ("labels", "answer", "label"),
    [
        (["C", "C#x"], "It is C#x", "C#x"),
        (["да", "нет"], "Ответ: Да", "да"),
        (["大", "小"], "大", "大"),
        ([1, 2], "the answer is 2", "2"),
        (["ünsicher", "sicher"], "ÜNSICHER", "ünsicher"),
        (["yes", "no"], "No.", "no"),
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
    ("answer", "number", "unit"),
    [
        ("42", 42, ""),
        ("so the answer is 42.", 42, ""),
        ("1,234.5", "1234.5", ""),
        ("12,345,678", 12345678, ""),
        ("$1,000", 1000, "$"),
        ("-7", -7, ""),
        ("x = -7.25", "-7.25", ""),
        ("6.02e23", 602 * 10**21, ""),
        ("1E-3", "0.001", ""),
        (".5", "0.5", ""),
        ("-$5", -5, "$"),
        ("it is \u20137", -7, ""),
        ("1 234 567.5", "1234567.5", ""),
        ("5\u202f000", 5000, ""),
        ("1'000", 1000, ""),
        ("5 million", 5_000_000, ""),
        ("$1.5bn", 1_500_000_000, "$"),
        ("20k", 20_000, ""),
        ("12 kg", 12, "kg"),
        ("5 mm", 5, "mm"),
        ("20M", 20, "M"),
        ("5½", "5.5", ""),
        ("1.5 × 10^3", 1500, ""),
        ("10⁶", 10**6, ""),
        (3, 3, ""),
        (2.5, "2.5", ""),
        (Decimal("2.50"), "2.5", ""),
        (np.float32(0.5), "0.5", ""),
        (np.int64(7), 7, ""),
    ],
    ids=str,
)
def test_number_reads_one_number_and_its_unit(answer, number, unit) -> None:
    assert Number().parse(answer) == (Fraction(number), unit)


@pytest.mark.parametrize(
    "answer",
    [
        *("1, 2, 3", "3-5", "between 10 and 20", "in 2024 people paid 500"),
        *("Step 2: 8", "**12**%", "4 items: 8", "about 3.14", "pi = 3.142"),
    ],
)
def test_number_refuses_one_of_several_and_prose(answer) -> None:
    with pytest.raises(UnparseableAnswerError, match=r"no (equation|number)"):
        Number().parse(answer)


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
        *("3,14", "1.234,56", "1.234.567", "1,23,45", "1234,567", "1,234 567"),
        *("1/0", "1/2/3", r"\frac{x}{2}", "5 1/2", "10:30", "5'10", "0x1f", "1e9999"),
        *("2^{6}", "2⁶", "2**3", "2 * 3", "√2", r"\sqrt{2}", "2π²", "007"),
        *(1j, Decimal("NaN"), Decimal("1e999999999"), Decimal("1e-999999999")),
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
    assert Number().parse(f"It is {value:,}.") == (value, "")
    assert Number().parse(f"It is {value}.") == (value, "")


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
    ("left", "right", "same"),
    [
        (Hidden(), Hidden(), True),
        (Hidden(secret=SecretStr("b")), Hidden(), False),
        (Hidden(left_out=1), Hidden(), False),
        (Hidden(rounded=0.4), Hidden(), False),
        (Hidden(renamed="b"), Hidden(), False),
        (Box({"a", "b", "c"}), Box({"c", "b", "a"}), True),
        (Box({"a"}), Box({"b"}), False),
        (Box({(1, 2)}), Box({(1, 2)}), True),
        (Box(Decimal("1.50")), Box(1.5), True),
        (Box(Decimal("1.50")), Box("1.5"), False),
        (Box(Decimal("0.1" + "0" * 30 + "1")), Box(Decimal("0.1")), False),
        (Box(np.array([1, 2])), Box([1.0, 2]), True),
        (Box(np.array([[1], [2]])), Box([1, 2]), False),
        (Box(np.int8(3)), '{"content": 3}', True),
        (Box(b"\xff"), Box(b"\xff"), True),
        (Box(b"a"), Box("a"), False),
        (Box(Colour.RED), '{"content": "red"}', True),
        (Box({1: "a"}), Box({"1": "a"}), False),
        (Box(Point(x=1)), Box({"y": 0, "x": 1}), True),
        (2**60 + 1, "1152921504606846976.0", False),
        ("1.0", 1, True),
    ],
)
def test_objects_are_compared_by_what_they_hold(left, right, same) -> None:
    assert equal(Json(), left, right) is same


def test_parallel_tool_calls_are_the_same_in_any_order() -> None:
    calls = [{"name": "a", "args": {"n": n, "tags": ["x", "y"]}} for n in (1, 2.0, 2)]
    assert calls_in_any_order(calls) == calls_in_any_order(calls[::-1])
    assert calls_in_any_order(calls) != calls_in_any_order(calls[:2])
    assert calls_in_any_order(calls) != calls_in_any_order([*calls[:2], calls[0]])
    other = [*calls[:2], {"name": "a", "args": {"n": 2, "tags": ["y", "x"]}}]
    assert calls_in_any_order(calls) != calls_in_any_order(other)
    with pytest.raises(UnparseableAnswerError):
        calls_in_any_order([{"name": "a", "args": object()}])


@pytest.mark.parametrize(
    "answer",
    [
        *("NaN", float("nan"), [float("inf")], {"a": lambda: 1}, Box(object())),
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
