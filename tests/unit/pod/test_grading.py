"""Scores of graders: known values, and properties that hold for every text."""

from typing import Any

import pytest
from finetune_pod.grading import MissingReferenceError, check_reference, grade
from hypothesis import given
from hypothesis import strategies as st
from unit.evaluations import grader

ROW = {"answer": "Berlin", "facts": {"river": "Spree"}, "year": 1237, "capital": True}


@pytest.mark.parametrize(
    ("check", "answer", "score"),
    [
        ({}, " Berlin\n", 1),
        ({}, "berlin", 0),
        ({"operation": "ne"}, "Bonn", 1),
        ({"operation": "ne"}, "Berlin", 0),
        ({"operation": "like"}, "It is Berlin.", 1),
        ({"operation": "like"}, "It is berlin.", 0),
        ({"operation": "ilike"}, "It is berlin.", 1),
        ({"operation": "ilike", "reference": "STRASSE"}, "die Straße", 1),
        ({"reference": "yes"}, "yes", 1),
        ({"referenceField": "facts.river"}, "Spree", 1),
        ({"referenceField": "year"}, "1237", 1),
        ({"referenceField": "capital"}, "true", 1),
    ],
)
def test_strings_are_checked_as_openai_checks_them(check: dict[str, Any], answer: str, score: float) -> None:
    assert grade(grader(stringCheck=check), answer, ROW) == score


@pytest.mark.parametrize(
    ("metric", "answer", "score"),
    [
        ("FuzzyMatch", "the cat sat", 1),
        # 10 of 11 characters in common on each side: 2 · 10 / 22
        ("FuzzyMatch", "the cat sit", 0.909),
        ("Rouge1", "the cat ran", 2 / 3),
        ("Rouge2", "the cat ran", 1 / 2),
        # longest common subsequence "the sat": 2 of 3 words
        ("RougeL", "the sat cat", 2 / 3),
        ("Bleu", "the cat sat", 1),
        ("Bleu", "", 0),
    ],
)
def test_likeness_has_its_known_values(metric: str, answer: str, score: float) -> None:
    result = grade(grader(textSimilarity={"metric": metric}), answer, {"answer": "the cat sat"})
    assert result == pytest.approx(score, abs=1e-3)


def test_a_threshold_makes_likeness_pass_or_fail() -> None:
    strict = grader(textSimilarity={"metric": "Rouge1", "passThreshold": 0.7})
    kind = grader(textSimilarity={"metric": "Rouge1", "passThreshold": 0.6})
    assert grade(strict, "the cat ran", {"answer": "the cat sat"}) == 0
    assert grade(kind, "the cat ran", {"answer": "the cat sat"}) == 1


def test_several_graders_are_weighted() -> None:
    both = grader(
        multi=[
            {"weight": 3, "stringCheck": {"operation": "like"}},
            {"textSimilarity": {"metric": "Rouge1", "referenceField": "facts.river"}},
        ]
    )
    assert grade(both, "Berlin", ROW) == pytest.approx(0.75)
    assert grade(both, "Spree", ROW) == pytest.approx(0.25)


def test_a_row_without_the_field_is_refused_before_there_is_an_answer() -> None:
    check_reference(grader(stringCheck={}), ROW)
    with pytest.raises(MissingReferenceError, match="needs the field facts.lake, the row's fields are answer, capital"):
        check_reference(grader(stringCheck={"referenceField": "facts.lake"}), ROW)


@given(
    st.text(max_size=40), st.text(max_size=40), st.sampled_from(["FuzzyMatch", "Bleu", "Rouge1", "Rouge2", "RougeL"])
)
def test_every_grade_lies_between_0_and_1(answer: str, reference: str, metric: str) -> None:
    both = grader(
        multi=[{"stringCheck": {"operation": "ilike"}}, {"weight": 0.5, "textSimilarity": {"metric": metric}}]
    )
    assert 0 <= grade(both, answer, {"answer": reference}) <= 1
