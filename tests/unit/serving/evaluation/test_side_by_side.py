"""Which answers the report shows beside each other."""

from finetune_serving.evaluation.estimators import Sample
from finetune_serving.evaluation.side_by_side import choose_samples
from unit.questions import question


def test_the_report_shows_the_most_improved_the_most_regressed_and_the_first() -> None:
    questions = [question(prompt=[], reference={}) for _ in range(200)]
    base = [Sample(answer="b", scores={"ExactMatch": float(number == 150)}) for number in range(200)]
    tuned = [Sample(answer="t", scores={"ExactMatch": float(number == 120)}) for number in range(200)]
    shown = choose_samples(questions, {"base": base, "tuned": tuned})
    assert [(one["number"], one["why"]) for one in shown if one["why"] != "First"] == [
        (121, "Improved"),
        (151, "Regressed"),
    ]
    assert len(shown) == 22
    assert (shown[0]["base"], shown[0]["tuned"], shown[0]["reference"]) == ("b", "t", "Oslo")
    assert shown[-2]["scores"] == {"base": {"ExactMatch": 0.0}, "tuned": {"ExactMatch": 1.0}}
