"""Decides what a FineTuneJob needs next: the children that should exist, the next status, when to look again.

Pure: everything that it knows comes in `Seen`, and the clock is an argument. The way is prepare,
train, evaluate, serve; a stage whose condition holds is never entered again.
"""

from dataclasses import dataclass
from datetime import datetime

from finetune_api.conditions import Condition, ConditionType, Reason
from finetune_api.continuation import Continuation
from finetune_api.finetunejob import FineTuneJobSpec, Serving
from finetune_api.jobstatus import FineTuneJobStatus, Progress, ServingStatus
from finetune_api.modelserver import ServedModel
from finetune_api.reports import StageReport
from finetune_api.uris import parse_uri

from finetune_operator.acceptance import Problem, find_problem, find_source_problem, resolve_earlier
from finetune_operator.attempts import Begin, Done, GiveUp, Step, Wait, count_begun, next_step
from finetune_operator.kinds import Manifest
from finetune_operator.manifests.names import job_file
from finetune_operator.manifests.server import build_model_server, endpoint_of
from finetune_operator.manifests.stages import (
    build_claim,
    build_job_file,
    build_stage_job,
    build_training_service,
    names_default_claim,
)
from finetune_operator.observe import Attempt, JobView, ServerView, Stage
from finetune_operator.settings import Settings
from finetune_operator.status import Conditions, Event, changed_conditions

PROGRESS_SECONDS = 5.0
"""How often the progress of a running training is read."""
_AT_ONCE = 0.1

_CONDITIONS = {
    Stage.PREPARE: ConditionType.DATASET_READY,
    Stage.TRAIN: ConditionType.TRAINED,
    Stage.EVALUATE: ConditionType.EVALUATED,
}
_RUNNING = {
    Stage.PREPARE: Reason.PREPARING,
    Stage.TRAIN: Reason.TRAINING,
    Stage.EVALUATE: Reason.EVALUATING,
}


@dataclass(frozen=True)
class Seen:
    """Everything in the cluster that bears on one FineTuneJob."""

    attempts: list[Attempt]
    earlier: JobView | None = None
    """The FineTuneJob that it begins with, if it names one that exists."""
    server: ServerView | None = None
    """The ModelServer that the job names or makes, if it exists."""
    server_is_ours: bool = False
    """Whether that server is controlled by this very job."""
    has_default_claim: bool = False
    """Whether the namespace's claim for artifacts exists; it is made once and then left alone."""
    progress: Progress | None = None
    """What the running training last said."""
    newer_job: str | None = None
    """A job that was proven later and serves under the same name on the same server."""


@dataclass(frozen=True)
class Plan:
    """What to do about one object."""

    apply: tuple[Manifest, ...]
    status: Manifest
    events: tuple[Event, ...]
    again_after: float | None = None
    """Seconds after which to look again though nothing was seen to change."""


def plan_job(job: JobView, seen: Seen, settings: Settings, now: datetime) -> Plan:
    """Decide about one FineTuneJob."""
    conditions = Conditions.start(job.status.conditions, job.generation, now)
    if conditions.is_true(ConditionType.FAILED):
        return Plan((), job.status.to_dict(), ())
    draft = _Draft(job, conditions, now)
    if job.spec is None:
        draft.refuse(Reason.INVALID_SPEC, job.problem)
    elif parse_uri(job.spec.model.uri).scheme == "finetunejob":
        draft.continue_from(resolve_earlier(job.spec, seen.earlier))
    elif not (problem := _find_problem(job, job.spec, seen, settings, conditions)):
        conditions.set(ConditionType.ACCEPTED, status=True, reason=Reason.ACCEPTED)
        draft.walk(job.spec, seen, settings)
    elif problem[0] is Reason.CONFLICT or not conditions.is_true(ConditionType.TRAINED):
        draft.refuse(*problem)
    else:
        draft.not_served(*problem)
    return draft.plan()


def _find_problem(
    job: JobView, spec: FineTuneJobSpec, seen: Seen, settings: Settings, conditions: Conditions
) -> Problem | None:
    """Return why the job may not go on; what its data came from does not matter once it is there."""
    if not conditions.is_true(ConditionType.DATASET_READY):
        problem = find_source_problem(spec.dataset, settings.sources.https_hosts)
        if problem:
            return problem
    return find_problem(spec, job_file(job).base, seen.server, server_is_ours=seen.server_is_ours)


class _Draft:
    """The next state of one job while it is decided."""

    def __init__(self, job: JobView, conditions: Conditions, now: datetime) -> None:
        self.job = job
        self.conditions = conditions
        self.now = now
        self.status = job.status.model_copy(update={"observed_generation": job.generation})
        self.children: list[Manifest] = []
        self.again_after: float | None = None

    def set_status(self, **changes: object) -> None:
        self.status = self.status.model_copy(update=changes)

    def plan(self) -> Plan:
        listed = self.conditions.listed()
        ready = self.conditions.by_type[ConditionType.READY]
        self.set_status(conditions=listed, reason=ready.reason)
        events = changed_conditions(self.job.status.conditions, listed)
        return Plan(tuple(self.children), self.status.to_dict(), tuple(events), self.again_after)

    def continue_from(self, earlier: Continuation | Problem) -> None:
        """Write down what the job begins with before anything is made from it: it never changes later."""
        if isinstance(earlier, Continuation):
            self.conditions.set(ConditionType.ACCEPTED, status=True, reason=Reason.ACCEPTED)
            self.set_status(continuation=earlier)
            self.wait(Stage.PREPARE, Reason.PREPARING, f"begins with the result of {earlier.job}")
            self.again_after = _AT_ONCE
        else:
            self.refuse(*earlier)

    def walk(self, spec: FineTuneJobSpec, seen: Seen, settings: Settings) -> None:
        """Go through the stages as far as they are done, and begin or await the next one."""
        method = f"{spec.method.name}/{spec.adapter.name}"
        self.set_status(
            start_time=self.status.start_time or self.now,
            method=method,
            attempts=count_begun(seen.attempts, self.status.attempts),
        )
        if not self.conditions.is_true(ConditionType.EVALUATED):
            self.children.append(build_job_file(self.job))
            if names_default_claim(self.job) and not seen.has_default_claim:
                self.children.append(build_claim(self.job, settings))
        if spec.compute.nodes > 1 and not self.conditions.is_true(ConditionType.TRAINED):
            self.children.append(build_training_service(self.job))
        for stage in Stage:
            if self.conditions.is_true(_CONDITIONS[stage]):
                continue
            begun: int = getattr(self.status.attempts, stage.lower())
            step = next_step(stage, seen.attempts, begun, spec.retries, self.now)
            if not self.take(stage, step, seen, settings):
                return
        self.serve(spec.serving, seen)

    def take(self, stage: Stage, step: Step, seen: Seen, settings: Settings) -> bool:
        """Do what the step says; tell whether the stage is done and the next may follow."""
        kind = _CONDITIONS[stage]
        match step:
            case Done(report):
                return self.finish(stage, report)
            case GiveUp(reason, message):
                self.conditions.set(kind, status=False, reason=reason, message=message)
                self.fail(reason, message)
            case Begin(number):
                view = JobView(**{**vars(self.job), "status": self.status})
                self.children.append(build_stage_job(view, stage, number, settings))
                self.set_status(
                    attempts=self.status.attempts.model_copy(update={stage.lower(): number}),
                    progress=None if stage is Stage.TRAIN and number == 1 else self.status.progress,
                )
                self.wait(stage, _RUNNING[stage], f"attempt {number}")
            case Wait(reason, message, until):
                self.wait(stage, reason or _RUNNING[stage], message)
                if until is not None:
                    self.again_after = max((until - self.now).total_seconds(), 0.1)
                elif stage is Stage.TRAIN:
                    self.follow(seen.progress)
        return False

    def follow(self, progress: Progress | None) -> None:
        """Take over new progress, but not with each event: writing it is an event too."""
        self.again_after = PROGRESS_SECONDS
        known = self.status.progress
        written = known.update_time if known else None
        if progress is None or progress.model_copy(update={"update_time": written}) == known:
            return
        if written is None or (self.now - written).total_seconds() >= PROGRESS_SECONDS:
            self.set_status(progress=progress.model_copy(update={"update_time": self.now}))

    def finish(self, stage: Stage, report: StageReport) -> bool:
        """Take over what a stage reports; tell whether the job goes on."""
        match stage:
            case Stage.PREPARE if report.dataset:
                self.set_status(dataset=report.dataset, hyperparameters=report.hyperparameters)
                message = report.dataset.describe()
            case Stage.TRAIN if report.training and report.artifact:
                steps = report.training.steps
                self.set_status(
                    training=report.training,
                    artifact=report.artifact,
                    progress=Progress(
                        percentage=100,
                        step=steps,
                        steps=steps,
                        remaining_seconds=0,
                        loss=round(report.training.loss, 4),
                        text="100%",
                        update_time=self.now,
                    ),
                )
                message = f"{steps} steps, loss {report.training.loss:.4f}"
            case Stage.EVALUATE if report.evaluation:
                self.set_status(evaluation=report.evaluation)
                message = "; ".join(gate.message for gate in report.evaluation.gates)
                if not report.evaluation.passed:
                    self.conditions.set(
                        ConditionType.EVALUATED, status=False, reason=Reason.GATES_FAILED, message=message
                    )
                    self.fail(Reason.GATES_FAILED, message)
                    return False
            case _:
                reason, message = (
                    Reason.CONFLICT,
                    f"the report of {stage} lacks its part: are the images of one version?",
                )
                self.conditions.set(_CONDITIONS[stage], status=False, reason=reason, message=message)
                self.fail(reason, message)
                return False
        reason = Reason.GATES_PASSED if stage is Stage.EVALUATE else Reason.SUCCEEDED
        self.conditions.set(_CONDITIONS[stage], status=True, reason=reason, message=message)
        return True

    def serve(self, serving: Serving | None, seen: Seen) -> None:
        """Bring the proven adapter behind its name, or end with the artifact."""
        if serving is None:
            self.complete(Reason.COMPLETED, "the proven adapter is at status.artifact.uri")
            return
        server = serving.server or self.job.name
        if serving.template is not None:
            self.children.append(build_model_server(self.job))
        served = _served(self.job, self.status, serving, seen)
        self.set_status(
            serving=ServingStatus(
                model_name=serving.model_name,
                server=server,
                endpoint=endpoint_of(self.job.namespace, server),
                loaded_pods=served.loaded_pods if served else 0,
            )
        )
        if served and served.loaded_pods > 0:
            message = f"{serving.model_name} answers on ModelServer {server}"
            self.conditions.set(ConditionType.SERVED, status=True, reason=Reason.ADAPTER_LOADED, message=message)
            self.complete(Reason.SERVING, message)
        elif seen.newer_job:
            self.not_served(Reason.SUPERSEDED, f"{seen.newer_job} serves {serving.model_name} now")
        elif served and served.message:
            self.not_served(Reason.ADAPTER_REFUSED, served.message)
        elif self.status.completion_time:
            self.not_served(Reason.SERVER_NOT_READY, f"ModelServer {server} has no ready pod with the adapter")
        else:
            self.not_served(Reason.DEPLOYING, _explain_server(server, seen.server))

    def complete(self, reason: Reason, message: str) -> None:
        self.conditions.set(ConditionType.READY, status=True, reason=reason, message=message)
        self.set_status(stage="Complete", completion_time=self.status.completion_time or self.now)

    def not_served(self, reason: Reason, message: str) -> None:
        for kind in (ConditionType.SERVED, ConditionType.READY):
            self.conditions.set(kind, status=False, reason=reason, message=message)
        self.set_status(stage="Serve")

    def wait(self, stage: Stage, reason: Reason, message: str) -> None:
        for kind in (_CONDITIONS[stage], ConditionType.READY):
            self.conditions.set(kind, status=False, reason=reason, message=message)
        self.set_status(stage=str(stage))

    def refuse(self, reason: Reason, message: str) -> None:
        for kind in (ConditionType.ACCEPTED, ConditionType.READY):
            self.conditions.set(kind, status=False, reason=reason, message=message)

    def fail(self, reason: Reason, message: str) -> None:
        self.conditions.set(ConditionType.READY, status=False, reason=reason, message=message)
        self.conditions.set(ConditionType.FAILED, status=True, reason=reason, message=message)
        self.set_status(stage="Failed", completion_time=self.now)


def _served(job: JobView, status: FineTuneJobStatus, serving: Serving, seen: Seen) -> ServedModel | None:
    """Return what the server says of this very adapter."""
    for model in seen.server.status.models if seen.server else []:
        mine = (serving.model_name, job.name, status.artifact.digest if status.artifact else "")
        if (model.name, model.job, model.digest) == mine:
            return model
    return None


def _explain_server(name: str, server: ServerView | None) -> str:
    conditions: list[Condition] = server.status.conditions if server else []
    for condition in conditions:
        if condition.type == ConditionType.READY and condition.status == "False" and condition.message:
            return f"ModelServer {name}: {condition.message}"
    return f"ModelServer {name} loads the adapter"
