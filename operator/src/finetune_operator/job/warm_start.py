"""A job that starts from the result of a parent job, or keeps that result and evaluates it again. No I/O."""

from finetune_api.artifact import Artifact
from finetune_api.conditions import ConditionType, Reason
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.modelserver import Model
from finetune_api.stage import Stage
from finetune_api.uris import parse_uri
from finetune_api.warm_start import WarmStart

from finetune_operator.job.acceptance import Problem
from finetune_operator.job.plan_builder import PlanBuilder
from finetune_operator.job.results import find_template_digest
from finetune_operator.manifests.names import job_file
from finetune_operator.state.conditions import true_conditions
from finetune_operator.state.plan import REQUEUE_SOON_SECONDS
from finetune_operator.state.views import JobView


def record_warm_start(builder: PlanBuilder, parent: WarmStart | Problem) -> None:
    """Record the model that the job starts from before anything is created from it: it never changes later."""
    if not isinstance(parent, WarmStart):
        builder.set_not_accepted(*parent)
        return
    builder.conditions.set(ConditionType.ACCEPTED, status=True, reason=Reason.ACCEPTED)
    builder.set_status(warm_start=parent)
    message = f"starting from the result of FineTuneJob {parent.job}"
    builder.set_stage_incomplete(Stage.PREPARE, Reason.PREPARING, message)
    builder.requeue_after(REQUEUE_SOON_SECONDS)


def keep_result(builder: PlanBuilder) -> bool:
    """Return whether the job keeps the result of its parent and trains nothing; record that result as its own."""
    warm_start = builder.status.warm_start
    if warm_start is None or not warm_start.is_kept:
        return False
    message = f"the result of FineTuneJob {warm_start.job} is kept, nothing is trained"
    builder.set_status(artifact=warm_start.artifact)
    builder.conditions.set(ConditionType.TRAINED, status=True, reason=Reason.SUCCEEDED, message=message)
    return True


def resolve_parent(spec: FineTuneJobSpec, parent: JobView | None) -> WarmStart | Problem:
    """Return the model behind a `finetunejob://` URI in `model.uri`, or why the job cannot start from it.

    Args:
        spec: the job's spec.
        parent: the FineTuneJob that the URI names, if it exists.
    """
    name = parse_uri(spec.model.uri).authority
    if parent is None or parent.spec is None:
        problem = f"is invalid: {parent.problem}" if parent else "does not exist"
        return Reason.MODEL_NOT_FOUND, f"FineTuneJob {name} {problem}: correct model.uri"
    is_kept = spec.model.parent_adapter == "Keep"
    conditions = true_conditions(parent.status.conditions)
    artifact = parent.status.artifact
    needed = ConditionType.TRAINED if is_kept else ConditionType.EVALUATED
    if ConditionType.FAILED in conditions and not (is_kept and needed in conditions):
        return Reason.MODEL_NOT_FOUND, f"FineTuneJob {name} failed: {conditions[ConditionType.FAILED].message}"[:1024]
    if needed not in conditions or artifact is None:
        event = "end its training" if is_kept else "pass its evaluation"
        return Reason.WAITING, f"waiting for FineTuneJob {name} to {event}"
    if is_kept:
        return _resolve_kept(spec, name, parent.spec, parent, artifact)
    if parent.spec.method.reward:
        return Reason.MODEL_UNSUPPORTED, (
            f"FineTuneJob {name} trained a reward model, which cannot be trained further: name another job in model.uri"
        )
    if artifact.kind == "Model":
        if spec.model.parent_adapter:
            return Reason.INVALID_SPEC, f"FineTuneJob {name} trained a full model: remove model.parentAdapter"
        return WarmStart(job=name, model=Model(uri=artifact.uri), artifact=artifact)
    mode = spec.model.parent_adapter or "Train"
    if mode == "Train" and spec.adapter != parent.spec.adapter:
        return Reason.INVALID_SPEC, (
            f"adapter differs from the adapter of FineTuneJob {name}, which this job trains further:"
            " copy it from there, or set model.parentAdapter to Merge to train a new one"
        )
    base = _base_of(parent)
    template = find_template_digest(base, parent.status.dataset)
    return WarmStart(job=name, model=base, artifact=artifact, parent_adapter=mode, chat_template=template)


def _resolve_kept(
    spec: FineTuneJobSpec, name: str, parent_spec: FineTuneJobSpec, parent: JobView, artifact: Artifact
) -> WarmStart | Problem:
    """Return the result of a parent job that is evaluated again, or which field does not describe it."""
    differs = {
        "method": spec.method.name != parent_spec.method.name,
        "adapter": spec.adapter != parent_spec.adapter,
        "dataset.reasoning": spec.dataset.reasoning != parent_spec.dataset.reasoning,
    }
    for field in (field for field, is_so in differs.items() if is_so):
        return Reason.INVALID_SPEC, (
            f"{field} differs from that of FineTuneJob {name}, whose result this job evaluates again"
            " (model.parentAdapter is Keep): copy it from there"
        )
    dataset = parent.status.dataset
    thinking_off = (dataset and dataset.thinking_off) or None
    base = _base_of(parent)
    return WarmStart(
        job=name,
        model=base,
        artifact=artifact,
        parent_adapter="Keep",
        thinking_off=thinking_off,
        chat_template=find_template_digest(base, dataset),
    )


def _base_of(parent: JobView) -> Model:
    return Model.model_validate(job_file(parent).base.to_dict())
