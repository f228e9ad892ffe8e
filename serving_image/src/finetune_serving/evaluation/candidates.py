"""Evaluates all models on the same questions: adapters on one engine, complete models one after the other."""

import logging
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from multiprocessing import get_context
from typing import Any, Literal

from finetune_serving.evaluation.engine import ModelCandidate, RewardModel, VllmEngine
from finetune_serving.evaluation.estimators import Sample
from finetune_serving.evaluation.questions import PromptBuilder, Question
from finetune_serving.evaluation.remote_engine import RemoteEngine
from finetune_serving.evaluation.scoring import Scoring, score_output
from finetune_serving.stop_tokens import read_stop_tokens
from finetune_serving.vllm_config import has_gpu

_LOG = logging.getLogger(__name__)

Role = Literal["base", "incumbent", "tuned"]


@dataclass(frozen=True)
class EvaluationTask:
    """An evaluation; each process gets the part of it with the candidates of one model."""

    candidates: dict[Role, ModelCandidate]
    tokenizer: str
    """The base model, whose tokenizer and chat template are used for all models."""
    revision: str | None
    """Branch, tag or commit of the base model on the hub."""
    examples: list[dict[str, Any]]
    scoring: Scoring
    max_tokens: int
    """Maximum tokens of an answer."""
    server_url: str = ""
    """Address of a server that hosts all candidates; empty if the process loads the model itself."""
    today: date | None = None
    """The date for chat templates that print today's; None is the current date."""
    chat_template: str | None = None
    """The text of `model.chatTemplate`; None if the base model's own chat template is used."""


@dataclass(frozen=True)
class EvaluationResult:
    """The questions, and a sample for each of them by model."""

    questions: list[Question]
    """The examples that fit all models."""
    samples: dict[Role, list[Sample]]


def evaluate_all(task: EvaluationTask) -> EvaluationResult:
    """Evaluate candidates with any models: the base model and those that it is compared with.

    Different models run in one process each, one after the other: only the end of a process frees all GPU memory.

    Raises:
        ValueError: no example fits the models.
        BrokenProcessPool: the kernel killed a process.
    """
    candidates = task.candidates
    models = list(dict.fromkeys(candidate.model for candidate in candidates.values()))
    questions: list[Question] = []
    samples: dict[Role, list[Sample]] = {}
    for model in models:
        same_model = {role: candidate for role, candidate in candidates.items() if candidate.model == model}
        task = replace(task, candidates=same_model)
        if len(models) == 1:
            result = evaluate_model(task)
        else:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                is_reward = any(candidate.is_reward for candidate in same_model.values())
                result = process.submit(evaluate_reward_model if is_reward else evaluate_model, task).result()
        if questions and len(result.questions) != len(task.examples):
            raise ValueError("the tuned model has a smaller maximum length than its base model")
        # Examples that do not fit the first model are skipped for the others too.
        questions = result.questions
        task = replace(task, examples=[question.example for question in questions])
        samples |= result.samples
    return EvaluationResult(questions, samples)


def evaluate_model(task: EvaluationTask) -> EvaluationResult:
    """Evaluate all candidates of one model in this process.

    Raises:
        ValueError: no example fits the model.
    """
    candidates = task.candidates
    engine = _open_engine(task)
    builder = _open_builder(engine.tokenizer, task)
    questions = _build_questions(builder, task, engine.max_model_len)
    tool_format = builder.learn_tool_format() if "ToolCallValid" in task.scoring.metrics else None
    samples: dict[Role, list[Sample]] = {}
    for role, candidate in candidates.items():
        outputs = engine.run(questions, task.max_tokens, candidate)
        samples[role] = [
            score_output(question, output, task.scoring, tool_format)
            for question, output in zip(questions, outputs, strict=True)
        ]
        _LOG.info("evaluated the %s model", role)
    return EvaluationResult(questions, samples)


def _open_engine(task: EvaluationTask) -> VllmEngine | RemoteEngine:
    if task.server_url:
        return RemoteEngine(task.server_url, task.tokenizer, task.revision)
    candidates = task.candidates.values()
    max_rank = max((candidate.rank for candidate in candidates), default=0) or None
    model = next(iter(candidates)).model
    revision = task.revision if model == task.tokenizer else None
    return VllmEngine(model, task.tokenizer, revision, max_rank, gpu=has_gpu())


def evaluate_reward_model(task: EvaluationTask) -> EvaluationResult:
    """Let a reward model score both answers of every preference in this process.

    Raises:
        ValueError: no example fits the model.
    """
    ((role, candidate),) = task.candidates.items()
    model = RewardModel(candidate.model, task.tokenizer, gpu=has_gpu())
    questions = _build_questions(_open_builder(model.tokenizer, task), task, model.max_model_len)
    chosen_scores = model.score([question.expected[0] for question in questions if question.expected])
    rejected_scores = model.score([question.rejected for question in questions if question.rejected])
    samples = [
        Sample(scores={"PreferenceAccuracy": float(chosen > rejected)})
        for chosen, rejected in zip(chosen_scores, rejected_scores, strict=True)
    ]
    _LOG.info("evaluated the %s model", role)
    return EvaluationResult(questions, {role: samples})


def _open_builder(tokenizer: Any, task: EvaluationTask) -> PromptBuilder:
    if task.chat_template:
        tokenizer.chat_template = task.chat_template
    return PromptBuilder(tokenizer, read_stop_tokens(task.tokenizer, task.revision, tokenizer), task.today)


def _build_questions(builder: PromptBuilder, task: EvaluationTask, max_model_len: int) -> list[Question]:
    """Return the questions of those examples that fit the model together with an answer."""
    questions = [builder.build_question(example) for example in task.examples]
    max_prompt = max_model_len - task.max_tokens
    fitting = [
        question for question in questions if question.length < max_model_len and len(question.prompt) <= max_prompt
    ]
    if not fitting:
        raise ValueError(
            f"none of the {len(questions)} held-out examples fits the model's {max_model_len} tokens: give shorter"
            " examples, or lower evaluation.maxNewTokens"
        )
    _LOG.info("%d of %d held-out examples fit the model", len(fitting), len(questions))
    return fitting
