"""Everything in the cluster that bears on one FineTuneJob, as values. Pure."""

from dataclasses import dataclass, field

from finetune_api.artifact import Incumbent
from finetune_api.jobstatus import TrainingProgress

from finetune_operator.job.quota import Occupancy
from finetune_operator.state.child_jobs import Attempt
from finetune_operator.state.views import JobView, ServerView


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
    server_is_busy: bool = False
    """Whether that server evaluates another job's result."""
    progress: TrainingProgress | None = None
    """What the running training last said."""
    incumbent: Incumbent = field(default_factory=Incumbent)
    """What serves under the same name on that server."""
    newer_job: str | None = None
    """A job that was proven later and serves under the same name on the same server."""
    stray: str = ""
    """A Job of a stage that is nobody's any more: it may run on, so no other may begin."""
    leftover: list[str] = field(default_factory=list)
    """Names of the stages' pods that have not ended, and whose Job is gone."""
    others: Occupancy = field(default_factory=Occupancy)
    """What the other jobs of the namespace hold and wait for, where it has a limit."""
    is_awaited: bool = False
    """Whether another job is to begin with this one's result, and has not taken it over yet."""
