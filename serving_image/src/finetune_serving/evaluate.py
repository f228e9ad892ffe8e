"""`finetune-server evaluate`: base and tuned model on the held-out data, through vLLM as it will serve them."""

import json
import logging
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.jobfile import JobDirectory, JobFile
from finetune_api.reports import EvaluationSummary, StageReport

from finetune_serving.adapters import AdapterRefusedError, fetch_adapter
from finetune_serving.comparison import Sample, compare
from finetune_serving.config import has_gpu, resolve_model, set_environment
from finetune_serving.engine import Engine, Question

_LOG = logging.getLogger(__name__)


def evaluate(job: JobFile, root: Path, train_attempt: int, digest: str) -> StageReport:
    """Judge the adapter of an attempt at the training.

    Raises:
        FileNotFoundError: the held-out data or the adapter is gone.
        AdapterRefusedError: the adapter cannot be served.
        FetchError: the base model cannot be fetched.
        ModelFilesError: it cannot be served.
        ValueError: no held-out conversation fits the model.
    """
    spec, directory = job.spec, JobDirectory.of(job)
    lora = spec.adapter.lora
    if lora is None:
        raise ValueError("adapter.lora is missing")
    heldout = _read(_below(root, directory.heldout_data))[: spec.evaluation.max_examples]
    with tempfile.TemporaryDirectory() as scratch:
        adapter = fetch_adapter(
            _below(root, directory.adapter(train_attempt)), digest, Path(scratch), job.base.uri, lora.rank
        )
        gpu = has_gpu()
        set_environment(gpu=gpu)
        # The engine in this very process: nothing is left to stop at the end.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        engine = Engine(resolve_model(job.base.uri, root), job.base.revision, lora.rank, gpu=gpu)
        questions = [engine.build_question(conversation) for conversation in heldout]
        room = engine.longest - spec.evaluation.max_answer_tokens
        fitting = [one for one in questions if len(one.ids) < engine.longest and len(one.prompt) <= room]
        if not fitting:
            raise ValueError(f"none of {len(questions)} held-out conversations fits into {engine.longest} tokens")
        _LOG.info("%d of %d held-out conversations fit the model", len(fitting), len(questions))
        base = engine.judge(fitting, spec.evaluation.max_answer_tokens, None)
        _LOG.info("the base model is measured")
        tuned = engine.judge(fitting, spec.evaluation.max_answer_tokens, adapter)
    if not all(math.isfinite(sample.nll) for sample in tuned):
        raise AdapterRefusedError("its likelihoods are no numbers: lower hyperparameters.learningRate")
    summary = compare(base, tuned, spec.evaluation.gates)
    _write(_below(root, directory.report("evaluate")), summary, fitting, base, tuned)
    return StageReport(
        outcome="Succeeded",
        reason=Reason.GATES_PASSED if summary.passed else Reason.GATES_FAILED,
        message="; ".join(gate.message for gate in summary.gates)[:1024],
        evaluation=summary,
    )


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write(
    path: Path, summary: EvaluationSummary, questions: list[Question], base: list[Sample], tuned: list[Sample]
) -> None:
    """Write the whole result with every answer side by side."""
    samples = [
        {
            "example": question.example,
            "reference": question.reference,
            "base": before.answer,
            "tuned": after.answer,
        }
        for question, before, after in zip(questions, base, tuned, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(summary.to_dict() | {"samples": samples}, indent=1, ensure_ascii=False))


def _below(root: Path, path: Path) -> Path:
    return root / str(path).lstrip("/")
