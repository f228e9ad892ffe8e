"""`finetune-server evaluate`: compares base, incumbent and tuned model on the held-out data, in vLLM as when served."""

import json
import logging
import math
import os
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from finetune_api.artifact import Artifact, Incumbent
from finetune_api.contract.jobfile import JobDirectory, JobFile
from finetune_api.contract.mounts import path_of
from finetune_api.contract.reports import StageReport
from finetune_api.contract.routes import version_name
from finetune_api.modelserver import Model
from finetune_api.references import BASE_NAME
from finetune_api.summaries import EvaluationSummary, MetricComparison
from finetune_api.training import LORA_RANKS
from finetune_pod.fingerprints import hash_prompt
from finetune_pod.measurable import Example, choose_gates, choose_metrics, read_traits
from finetune_pod.model_card import with_scores
from finetune_pod.template_file import read_prepared_template

from finetune_serving.adapters import AdapterPolicy, AdapterRefusedError, check_model, copy_adapter
from finetune_serving.evaluation.candidates import EvaluationResult, EvaluationTask, Role, evaluate_all
from finetune_serving.evaluation.comparison import compare, compute_mcnemar_p
from finetune_serving.evaluation.engine import ModelCandidate
from finetune_serving.evaluation.gates import summarize
from finetune_serving.evaluation.scoring import Scoring
from finetune_serving.evaluation.side_by_side import choose_samples
from finetune_serving.vllm_config import has_gpu, resolve_model, set_environment
from finetune_serving.weights import read_shapes

_LOG = logging.getLogger(__name__)


def evaluate(
    job: JobFile, directory: JobDirectory, tuned: Artifact, incumbent: Incumbent, server_url: str
) -> StageReport:
    """Evaluate the result of a training, its base model and the incumbent; write the report and return its summary.

    Args:
        job: the FineTuneJob.
        directory: the job's directory.
        tuned: the result of the training.
        incumbent: the version that is served now.
        server_url: address of a server that hosts all of them; empty if this process loads them itself.

    Raises:
        FileNotFoundError: the held-out data or the artifact is missing.
        AdapterRefusedError: the adapter or the model cannot be served.
        FetchError: the base model cannot be fetched.
        ModelFilesError: the base model cannot be served.
        ValueError: no held-out example fits the model.
    """
    spec, settings = job.spec, job.spec.evaluation
    known = _read_known_prompts(incumbent, directory.root)
    examples = _read_examples(directory.heldout_data, settings.max_examples, known)
    traits = read_traits(examples, is_reward_model=spec.method.reward is not None)
    gates = choose_gates(settings, traits, spec.graders)
    schema = json.loads(settings.json_schema) if settings.json_schema else None
    scoring = Scoring(tuple(choose_metrics(settings, traits, spec.graders)), tuple(spec.graders), schema)
    _set_environment()
    is_required = any(gate.relative_to == "Incumbent" for gate in gates)
    result = _evaluate_candidates(
        job, directory, tuned, incumbent, examples, scoring, server_url, is_required=is_required
    )
    samples = result.samples
    if not all(math.isfinite(sample.nll) for sample in samples["tuned"]):
        raise AdapterRefusedError("its likelihoods are not finite numbers: lower hyperparameters.learningRate")
    is_known = _find_known(result, known)
    comparisons = compare(scoring.metric_keys, samples["base"], samples["tuned"], samples.get("incumbent"), is_known)
    summary = summarize(len(result.questions), comparisons, gates, settings.min_examples)
    _write_report(directory.report("evaluate"), summary, comparisons, incumbent, result, is_known)
    _add_scores(JobDirectory.of_artifact(tuned, directory.root).model_card, directory.model_card, summary)
    return StageReport(
        outcome="Succeeded",
        reason=summary.reason,
        message="; ".join(gate.message for gate in summary.gates)[:1024],
        evaluation=summary,
    )


def _evaluate_candidates(
    job: JobFile,
    directory: JobDirectory,
    tuned: Artifact,
    incumbent: Incumbent,
    examples: list[Example],
    scoring: Scoring,
    server_url: str,
    *,
    is_required: bool,
) -> EvaluationResult:
    """Check the result, its base model and the incumbent, which a gate may require, and evaluate them."""
    with tempfile.TemporaryDirectory() as scratch:
        model = resolve_model(job.base.uri, directory.root, weights=not server_url)
        candidates: dict[Role, ModelCandidate] = {"base": ModelCandidate(model, served_name=BASE_NAME)}
        candidates |= _check_incumbent(incumbent, model, job, directory, Path(scratch), is_required=is_required)
        candidates["tuned"] = _check_candidate(tuned, job.name, model, job, directory, Path(scratch))
        template = read_prepared_template(job, directory)
        task = EvaluationTask(
            candidates,
            tokenizer=model,
            revision=job.base.revision,
            examples=examples,
            scoring=scoring,
            max_tokens=job.spec.evaluation.max_new_tokens,
            server_url=server_url,
            today=directory.read_template_date(),
            chat_template=template.text if template else None,
        )
        return evaluate_all(task)


def _check_candidate(
    artifact: Artifact, job_name: str, model: str, job: JobFile, directory: JobDirectory, scratch: Path
) -> ModelCandidate:
    """Check the artifact of the job `job_name`, and return it as a candidate."""
    source = path_of(artifact.uri, directory.root)
    if artifact.kind == "Model":
        is_reward = job.spec.method.reward is not None
        check_model(source, artifact, is_reward=is_reward)
        return ModelCandidate(str(source), is_reward=is_reward)
    base = Model(uri=job.base.uri, revision=job.base.revision)
    policy = AdapterPolicy(base, LORA_RANKS[-1], read_shapes(model, job.base.revision))
    adapter = copy_adapter(source, artifact, scratch, policy)
    rank = int(json.loads((adapter / "adapter_config.json").read_text())["r"])
    name = job.spec.serving.model_name if job.spec.serving else ""
    return ModelCandidate(model, adapter, rank, served_name=version_name(name, job_name))


def _set_environment() -> None:
    set_environment(gpu=has_gpu())
    # Run the engine in this process, so that no other process has to be stopped at the end.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"


def _check_incumbent(
    incumbent: Incumbent, model: str, job: JobFile, directory: JobDirectory, scratch: Path, *, is_required: bool
) -> dict[Role, ModelCandidate]:
    """Check the incumbent, and return it as a candidate; nothing if there is none, or if it cannot be evaluated.

    Raises:
        AdapterRefusedError: the incumbent cannot be evaluated, and a gate is relative to it.
    """
    if incumbent.artifact is None:
        return {}
    try:
        return {"incumbent": _check_candidate(incumbent.artifact, incumbent.job, model, job, directory, scratch)}
    except (AdapterRefusedError, OSError) as error:
        message = f"the incumbent of FineTuneJob {incumbent.job} cannot be evaluated: {error}"
        if is_required:
            raise AdapterRefusedError(f"{message}; a gate is relative to it") from error
        _LOG.warning("%s; continuing without it", message)
        return {}


def _read_examples(path: Path, max_examples: int, known: set[int]) -> list[Example]:
    """Return held-out examples; those that are new to the incumbent come first, since it is compared on them alone."""
    with path.open(encoding="utf-8") as file:
        if not known:
            return [json.loads(line) for line in islice(file, max_examples)]
        examples = [json.loads(line) for line in file]
    return sorted(examples, key=lambda example: hash_prompt(example) in known)[:max_examples]


def _find_known(result: EvaluationResult, known: set[int]) -> list[bool]:
    """Return for each question whether the incumbent was trained on its prompt."""
    is_known = [hash_prompt(question.example) in known for question in result.questions]
    if any(is_known):
        _LOG.warning("the incumbent is not compared on %d held-out examples: it was trained on them", sum(is_known))
    return is_known


def _read_known_prompts(incumbent: Incumbent, root: Path) -> set[int]:
    """Return the hashes of all prompts that the incumbent was trained on, as far as its training data exists."""
    if incumbent.artifact is None:
        return set()
    path = JobDirectory.of_artifact(incumbent.artifact, root).train_data
    try:
        with path.open(encoding="utf-8") as file:
            return {hash_prompt(json.loads(line)) for line in file}
    except (OSError, ValueError) as error:
        _LOG.warning("%s cannot be read, so it is unknown which held-out examples are in it: %s", path, error)
        return set()


def _write_report(
    path: Path,
    summary: EvaluationSummary,
    comparisons: list[MetricComparison],
    incumbent: Incumbent,
    result: EvaluationResult,
    is_known: list[bool],
) -> None:
    """Write the full report: all metrics, and some answers side by side."""
    samples = result.samples
    report = summary.to_dict() | {
        "metrics": [_with_mcnemar(comparison, result, is_known) for comparison in comparisons],
        "incumbent": incumbent.to_dict(),
        "samples": choose_samples(
            result.questions, {role: samples[role] for role in get_args(Role) if role in samples}
        ),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False))


def _with_mcnemar(comparison: MetricComparison, result: EvaluationResult, is_known: list[bool]) -> dict[str, Any]:
    """Return the fields of a comparison, with McNemar's p-value for ExactMatch, which is 0 or 1 for each example."""
    fields = comparison.to_dict()
    if comparison.metric != "ExactMatch":
        return fields
    matches = {role: [sample.scores["ExactMatch"] for sample in samples] for role, samples in result.samples.items()}
    fields["mcnemarP"] = compute_mcnemar_p(matches["base"], matches["tuned"])
    if "incumbent" in matches:
        new = [index for index, known in enumerate(is_known) if not known]
        before, after = ([matches[role][index] for index in new] for role in ("incumbent", "tuned"))
        fields["incumbent"]["mcnemarP"] = compute_mcnemar_p(before, after)
    return fields


def _add_scores(source: Path, target: Path, summary: EvaluationSummary) -> None:
    """Write the model card of the training with the scores to the directory of the job that evaluated the result."""
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(with_scores(source.read_text(encoding="utf-8"), summary), encoding="utf-8")
