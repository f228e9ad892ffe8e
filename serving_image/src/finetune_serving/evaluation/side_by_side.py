"""Chooses the examples whose answers the report shows side by side. Pure."""

from typing import Any

from finetune_pod.chat import find_last_answer

from finetune_serving.evaluation.estimators import Sample
from finetune_serving.evaluation.questions import Question

_EACH = 20
"""Examples shown at most of the most improved, the most regressed and the first ones."""


def choose_samples(questions: list[Question], models: dict[str, list[Sample]]) -> list[dict[str, Any]]:
    """Return what the report shows of some examples, in the order of the data.

    Args:
        questions: all of them.
        models: the samples by model: `base`, `tuned`, and `incumbent` where there is one.
    """
    gains = [_gain(before, after) for before, after in zip(models["base"], models["tuned"], strict=True)]
    order = sorted(range(len(questions)), key=lambda index: gains[index])
    why: dict[int, str] = dict.fromkeys(range(min(_EACH, len(questions))), "First")
    why |= {index: "Regressed" for index in order[:_EACH] if gains[index] < (0.0, 0.0)}
    why |= {index: "Improved" for index in order[-_EACH:] if gains[index] > (0.0, 0.0)}
    return [
        _show(index, why[index], questions[index], {role: samples[index] for role, samples in models.items()})
        for index in sorted(why)
    ]


def _gain(before: Sample, after: Sample) -> tuple[float, float]:
    """Return by how much the scores rose together, and the likelihood where they did not tell."""
    scores = sum(after.scores[name] - value for name, value in before.scores.items() if name in after.scores)
    likelihood = _likelihood(after) - _likelihood(before) if before.tokens and after.tokens else 0.0
    return round(scores, 9), likelihood


def _likelihood(sample: Sample) -> float:
    return -sample.nll / sample.tokens if sample.tokens else 0.0


def _show(index: int, why: str, question: Question, samples: dict[str, Sample]) -> dict[str, Any]:
    return {
        "number": index + 1,
        "why": why,
        "example": question.example,
        "question": _question_of(question.example),
        "reference": question.reference,
        **{role: sample.answer for role, sample in samples.items()},
        "scores": {
            role: {name: round(value, 4) for name, value in sample.scores.items()}
            | ({"LogLikelihood": round(_likelihood(sample), 4)} if sample.tokens else {})
            for role, sample in samples.items()
        },
    }


def _question_of(example: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the messages before the answer; of plain text none."""
    if "messages" not in example:
        return list(example.get("prompt", []))
    return list(example["messages"][: find_last_answer(example["messages"])])
