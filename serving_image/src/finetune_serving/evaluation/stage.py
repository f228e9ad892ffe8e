"""`finetune-server evaluate`: base, incumbent and tuned model on the held-out data, through vLLM as they are served."""

import json
import logging
import math
import os
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from finetune_api.artifact import Artifact, Incumbent
from finetune_api.conditions import Reason
from finetune_api.contract.jobfile import JobDirectory, JobFile
from finetune_api.contract.mounts import path_of
from finetune_api.contract.reports import StageReport
from finetune_api.contract.routes import version_name
from finetune_api.modelserver import Model
from finetune_api.references import BASE_NAME
from finetune_api.summaries import EvaluationSummary, MetricComparison
from finetune_api.training import LORA_RANKS
from finetune_pod.measurable import Example, choose_gates, choose_metrics, read_traits
from finetune_pod.model_card import with_scores

from finetune_serving.adapters import AdapterRefusedError, Limits, check_model, fetch_adapter
from finetune_serving.evaluation.candidates import Judged, Role, judge_all
from finetune_serving.evaluation.comparison import compare, mcnemar
from finetune_serving.evaluation.engine import Candidate
from finetune_serving.evaluation.gates import summarise
from finetune_serving.evaluation.scoring import Scoring
from finetune_serving.evaluation.side_by_side import choose_samples
from finetune_serving.vllm_config import has_gpu, resolve_model, set_environment
from finetune_serving.weights import read_shapes

_LOG = logging.getLogger(__name__)


def evaluate(
    job: JobFile, directory: JobDirectory, tuned: Artifact, incumbent: Incumbent, server_url: str
) -> StageReport:
    """Judge what a training made, beside its base model and what serves now.

    Args:
        job: the FineTuneJob.
        directory: its directory.
        tuned: what the training made.
        incumbent: what serves now.
        server_url: of a server that hosts all of them; empty where this process loads them itself.

    Raises:
        FileNotFoundError: the held-out data or the artifact is gone.
        AdapterRefusedError: the adapter or the model cannot be served.
        FetchError: the base model cannot be fetched.
        ModelFilesError: the base model cannot be served.
        ValueError: no held-out example fits the model.
    """
    spec = job.spec
    asked = spec.evaluation
    examples = _read(directory.heldout_data, asked.max_examples)
    traits = read_traits(examples, is_reward_model=spec.method.reward is not None)
    gates = choose_gates(asked, traits, spec.graders)
    scoring = Scoring(
        tuple(dict.fromkeys([*choose_metrics(asked, traits, spec.graders), *(gate.metric for gate in gates)])),
        tuple(spec.graders),
        json.loads(asked.json_schema) if asked.json_schema else None,
    )
    set_environment(gpu=has_gpu())
    # The engine in its caller's process: nothing is left to stop at the end.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    is_needed = any(gate.relative_to == "Incumbent" for gate in gates)
    with tempfile.TemporaryDirectory() as scratch:
        model = resolve_model(job.base.uri, directory.root, weights=not server_url)
        candidates: dict[Role, Candidate] = {"base": Candidate(model, served_name=BASE_NAME)}
        candidates |= _find_incumbent(incumbent, model, job, directory, Path(scratch), is_needed=is_needed)
        candidates["tuned"] = _find_candidate(tuned, job.name, model, job, directory, Path(scratch))
        judged = judge_all(candidates, job.base.revision, examples, scoring, asked.max_new_tokens, server_url)
    samples = judged.samples
    if not all(math.isfinite(sample.nll) for sample in samples["tuned"]):
        raise AdapterRefusedError("its likelihoods are no numbers: lower hyperparameters.learningRate")
    metrics = compare(scoring.wanted, samples["base"], samples["tuned"], samples.get("incumbent"))
    summary = summarise(len(judged.questions), metrics, gates)
    _write(directory.report("evaluate"), summary, metrics, incumbent, judged)
    _complete_card(directory.model_card, summary)
    return StageReport(
        outcome="Succeeded",
        reason=Reason.GATES_PASSED if summary.passed else Reason.GATES_FAILED,
        message="; ".join(gate.message for gate in summary.gates)[:1024],
        evaluation=summary,
    )


def _find_candidate(
    artifact: Artifact, maker: str, model: str, job: JobFile, directory: JobDirectory, scratch: Path
) -> Candidate:
    """Check an artifact that a job made, and return it as a candidate."""
    source = path_of(artifact.uri, directory.root)
    if artifact.kind == "Model":
        is_reward = job.spec.method.reward is not None
        check_model(source, artifact, is_reward=is_reward)
        return Candidate(str(source), is_reward=is_reward)
    base = Model(uri=job.base.uri, revision=job.base.revision)
    limits = Limits(base, LORA_RANKS[-1], read_shapes(model, job.base.revision))
    adapter = fetch_adapter(source, artifact, scratch, limits)
    rank = int(json.loads((adapter / "adapter_config.json").read_text())["r"])
    name = job.spec.serving.model_name if job.spec.serving else ""
    return Candidate(model, adapter, rank, served_name=version_name(name, maker))


def _find_incumbent(
    incumbent: Incumbent, model: str, job: JobFile, directory: JobDirectory, scratch: Path, *, is_needed: bool
) -> dict[Role, Candidate]:
    """Return the incumbent, where there is one; one that is gone fails only what a gate compares with it.

    Raises:
        AdapterRefusedError: it cannot be judged, and a gate asks for it.
    """
    if incumbent.artifact is None:
        return {}
    try:
        return {"incumbent": _find_candidate(incumbent.artifact, incumbent.job, model, job, directory, scratch)}
    except (AdapterRefusedError, OSError) as error:
        message = f"the incumbent of FineTuneJob {incumbent.job} cannot be judged: {error}"
        if is_needed:
            raise AdapterRefusedError(f"{message}; a gate is relative to it") from error
        _LOG.warning("%s; the evaluation goes on without it", message)
        return {}


def _read(path: Path, most: int) -> list[Example]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in islice(file, most)]


def _write(
    path: Path, summary: EvaluationSummary, metrics: list[MetricComparison], incumbent: Incumbent, judged: Judged
) -> None:
    """Write all figures, and some answers side by side."""
    samples = judged.samples
    report = summary.to_dict() | {
        "metrics": [_with_mcnemar(one, judged) for one in metrics],
        "incumbent": incumbent.to_dict(),
        "samples": choose_samples(
            judged.questions, {role: samples[role] for role in get_args(Role) if role in samples}
        ),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False))


def _with_mcnemar(comparison: MetricComparison, judged: Judged) -> dict[str, Any]:
    """Return a comparison with McNemar's p where the metric is right or wrong for each example."""
    found = comparison.to_dict()
    if comparison.metric != "ExactMatch":
        return found
    right = {role: [one.scores["ExactMatch"] for one in samples] for role, samples in judged.samples.items()}
    found["mcnemarP"] = mcnemar(right["base"], right["tuned"])
    if "incumbent" in right:
        found["incumbent"]["mcnemarP"] = mcnemar(right["incumbent"], right["tuned"])
    return found


def _complete_card(path: Path, summary: EvaluationSummary) -> None:
    """Put the scores into the model card that the training wrote."""
    if path.is_file():
        path.write_text(with_scores(path.read_text(encoding="utf-8"), summary), encoding="utf-8")
