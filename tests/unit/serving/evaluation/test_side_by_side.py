"""The answers that the report shows side by side."""

from finetune_serving.evaluation.estimators import Sample
from finetune_serving.evaluation.side_by_side import choose_samples
from unit.questions import build_question


def test_the_report_shows_the_most_improved_the_most_regressed_and_the_first() -> None:
    questions = [build_question(prompt=[], reference={}) for _ in range(200)]
    base = [Sample(answer="b", scores={"ExactMatch": float(number == 150)}) for number in range(200)]
    tuned = [Sample(answer="t", scores={"ExactMatch": float(number == 120)}) for number in range(200)]
    entries = choose_samples(questions, {"base": base, "tuned": tuned})
    assert [(entry["number"], entry["why"]) for entry in entries if entry["why"] != "First"] == [
        (121, "Improved"),
        (151, "Regressed"),
    ]
    assert len(entries) == 22
    assert (entries[0]["base"], entries[0]["tuned"], entries[0]["reference"]) == ("b", "t", "Oslo")
    assert entries[-2]["scores"] == {"base": {"ExactMatch": 0.0}, "tuned": {"ExactMatch": 1.0}}
