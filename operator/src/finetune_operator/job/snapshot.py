"""Everything in the cluster that the plan of one FineTuneJob depends on, as values. No I/O."""

from dataclasses import dataclass, field

from finetune_api.artifact import Incumbent
from finetune_api.jobstatus import TrainingProgress

from finetune_operator.job.quota import QuotaUsage
from finetune_operator.state.child_jobs import Attempt
from finetune_operator.state.views import JobView, ServerView


@dataclass(frozen=True)
class JobSnapshot:
    """Everything in the cluster that the plan of one FineTuneJob depends on."""

    attempts: list[Attempt]
    parent: JobView | None = None
    """The FineTuneJob that `model.uri` names, if it exists."""
    server: ServerView | None = None
    """The ModelServer that the job names or creates, if it exists."""
    controls_server: bool = False
    """Whether this job is the server's controller."""
    has_default_claim: bool = False
    """Whether the namespace's claim for artifacts exists; the operator creates it once and never changes it."""
    server_is_busy: bool = False
    """Whether that server evaluates another job's result."""
    missing_volumes: list[str] = field(default_factory=list)
    """The ConfigMaps and claims that a waiting pod mounts and that do not exist, each with its kind."""
    unbound_claims: list[str] = field(default_factory=list)
    """The names of the claims that an unschedulable pod mounts and that are not bound to a volume."""
    progress: TrainingProgress | None = None
    """The latest progress that the running training reports."""
    incumbent: Incumbent = field(default_factory=Incumbent)
    """The result that is served under the same name on that server."""
    newer_job: str | None = None
    """A job that passed its gates later and serves under the same name on the same server."""
    orphaned_job: str = ""
    """A stage's Job without a controller: it may still be running, so no other may start."""
    lingering_pods: list[str] = field(default_factory=list)
    """Names of the stages' pods that have not ended and whose Job no longer exists."""
    other_usage: QuotaUsage = field(default_factory=QuotaUsage)
    """The quota that the other jobs of the namespace use and wait for, if the namespace has limits."""
    has_dependents: bool = False
    """Whether another job names this one in `model.uri` and has not recorded its result yet."""
