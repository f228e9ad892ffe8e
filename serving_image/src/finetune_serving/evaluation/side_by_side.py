"""Chooses the examples whose answers the report shows side by side. No I/O."""

from typing import Any

from finetune_pod.requests import find_last_answer

from finetune_serving.evaluation.estimators import Sample
from finetune_serving.evaluation.questions import Question

_MAX_PER_GROUP = 20
"""Maximum number of most improved, of most regressed and of first examples."""


def choose_samples(questions: list[Question], models: dict[str, list[Sample]]) -> list[dict[str, Any]]:
    """Return the report's entries for the chosen examples, in the order of the data.

    Args:
        questions: all questions.
        models: samples by model: `base`, `tuned`, and `incumbent` if there is one.
    """
    gains = [_compute_gain(before, after) for before, after in zip(models["base"], models["tuned"], strict=True)]
    order = sorted(range(len(questions)), key=lambda index: gains[index])
    why: dict[int, str] = dict.fromkeys(range(min(_MAX_PER_GROUP, len(questions))), "First")
    why |= {index: "Regressed" for index in order[:_MAX_PER_GROUP] if gains[index] < (0.0, 0.0)}
    why |= {index: "Improved" for index in order[-_MAX_PER_GROUP:] if gains[index] > (0.0, 0.0)}
    return [
        _build_entry(index, why[index], questions[index], {role: samples[index] for role, samples in models.items()})
        for index in sorted(why)
    ]


def _compute_gain(before: Sample, after: Sample) -> tuple[float, float]:
    """Return the sum of all gains in scores, and the gain in likelihood, which breaks ties."""
    scores = sum(after.scores[name] - value for name, value in before.scores.items() if name in after.scores)
    log_likelihood = (
        _mean_log_likelihood(after) - _mean_log_likelihood(before) if before.tokens and after.tokens else 0.0
    )
    return round(scores, 9), log_likelihood


def _mean_log_likelihood(sample: Sample) -> float:
    return -sample.nll / sample.tokens if sample.tokens else 0.0


def _build_entry(index: int, why: str, question: Question, samples: dict[str, Sample]) -> dict[str, Any]:
    return {
        "number": index + 1,
        "why": why,
        "example": question.example,
        "question": _get_prompt(question.example),
        "reference": question.reference,
        **{role: sample.answer for role, sample in samples.items()},
        "scores": {
            role: {name: round(value, 4) for name, value in sample.scores.items()}
            | ({"LogLikelihood": round(_mean_log_likelihood(sample), 4)} if sample.tokens else {})
            for role, sample in samples.items()
        },
    }


def _get_prompt(example: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the messages before the answer; none for plain text."""
    if "messages" not in example:
        return list(example.get("prompt", []))
    return list(example["messages"][: find_last_answer(example["messages"])])
