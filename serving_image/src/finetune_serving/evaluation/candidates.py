"""Measures every model on the same questions: adapters on one engine, whole models one after the other."""

import logging
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Literal

from finetune_serving.evaluation.engine import Candidate, Engine, RewardModel
from finetune_serving.evaluation.estimators import Sample
from finetune_serving.evaluation.questions import Asker, Question
from finetune_serving.evaluation.remote import RemoteEngine
from finetune_serving.evaluation.scoring import Scoring, score
from finetune_serving.vllm_config import has_gpu

_LOG = logging.getLogger(__name__)

Role = Literal["base", "incumbent", "tuned"]


@dataclass(frozen=True)
class Task:
    """What one process does: one model in vLLM, with all adapters on it."""

    candidates: dict[Role, Candidate]
    """All of one model."""
    tokenizer: str
    """The base model, in whose words every model is asked."""
    revision: str | None
    examples: list[dict[str, Any]]
    scoring: Scoring
    max_tokens: int
    server_url: str = ""
    """The server that hosts all candidates; without it the process loads the model itself."""


@dataclass(frozen=True)
class Judged:
    """What the models were asked, and what came of it."""

    questions: list[Question]
    """The examples that fit all models."""
    samples: dict[Role, list[Sample]]


def judge_all(
    candidates: dict[Role, Candidate],
    revision: str | None,
    examples: list[dict[str, Any]],
    scoring: Scoring,
    max_tokens: int,
    server_url: str = "",
) -> Judged:
    """Judge the base model and its rivals.

    Several models run in a process each, one after the other: only its end gives all of a GPU's memory back.

    Raises:
        ValueError: no example fits the models.
        BrokenProcessPool: the kernel ended a process.
    """
    base = candidates["base"].model
    models = list(dict.fromkeys(one.model for one in candidates.values()))
    questions: list[Question] = []
    samples: dict[Role, list[Sample]] = {}
    for model in models:
        mine = {role: one for role, one in candidates.items() if one.model == model}
        task = Task(mine, base, revision, examples, scoring, max_tokens, server_url)
        if len(models) == 1:
            judged = judge(task)
        else:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                rewarded = any(one.is_reward for one in mine.values())
                judged = process.submit(judge_reward if rewarded else judge, task).result()
        if questions and len(judged.questions) != len(examples):
            raise ValueError("the tuned model takes fewer tokens than its base model")
        # What the first model has no room for, the others are not asked.
        questions, examples = judged.questions, [one.example for one in judged.questions]
        samples |= judged.samples
    return Judged(questions, samples)


def judge(task: Task) -> Judged:
    """Judge all candidates of one model, in this process.

    Raises:
        ValueError: no example fits the model.
    """
    candidates = task.candidates
    engine = _open_engine(task)
    asker = Asker(engine.tokenizer)
    questions = _build_questions(asker, task, engine.longest)
    written = asker.learn_tool_format() if "ToolCallValid" in task.scoring.metrics else None
    samples: dict[Role, list[Sample]] = {}
    for role, candidate in candidates.items():
        measured = engine.measure(questions, task.max_tokens, candidate)
        samples[role] = [
            score(question, one, task.scoring, written) for question, one in zip(questions, measured, strict=True)
        ]
        _LOG.info("%s is measured", role)
    return Judged(questions, samples)


def _open_engine(task: Task) -> Engine | RemoteEngine:
    if task.server_url:
        return RemoteEngine(task.server_url, task.tokenizer, task.revision)
    candidates = task.candidates.values()
    rank = max((one.rank for one in candidates), default=0) or None
    model = next(iter(candidates)).model
    revision = task.revision if model == task.tokenizer else None
    return Engine(model, task.tokenizer, revision, rank, gpu=has_gpu())


def judge_reward(task: Task) -> Judged:
    """Let a reward model score the answers of every pair, in this process.

    Raises:
        ValueError: no example fits the model.
    """
    ((role, candidate),) = task.candidates.items()
    model = RewardModel(candidate.model, task.tokenizer, gpu=has_gpu())
    questions = _build_questions(Asker(model.tokenizer), task, model.longest)
    chosen = model.score([one.likely for one in questions if one.likely])
    rejected = model.score([one.rejected for one in questions if one.rejected])
    samples = [
        Sample(scores={"PreferenceAccuracy": float(better > worse)})
        for better, worse in zip(chosen, rejected, strict=True)
    ]
    _LOG.info("%s is measured", role)
    return Judged(questions, {role: samples})


def _build_questions(asker: Asker, task: Task, longest: int) -> list[Question]:
    """Return the examples that fit the model, ready for it."""
    asked = [asker.build_question(example) for example in task.examples]
    room = longest - task.max_tokens
    questions = [one for one in asked if one.length < longest and len(one.prompt) <= room]
    if not questions:
        raise ValueError(f"none of {len(asked)} held-out examples fits into {longest} tokens")
    _LOG.info("%d of %d held-out examples fit the model", len(questions), len(asked))
    return questions
