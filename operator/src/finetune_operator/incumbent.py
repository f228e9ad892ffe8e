"""What a FineTuneJob's result would replace: chosen before its first evaluation, and kept over all attempts. Pure.

The choice travels with the evaluation's Job as an argument and is recorded in the status. Whichever of the two is
seen is believed: a status that is read late, or that was not written any more, changes nothing.
"""

from finetune_api.artifact import Incumbent
from finetune_api.finetunejob import Serving

from finetune_operator.observe import Attempt, Stage
from finetune_operator.views import JobView, ServerView


def find_incumbent(serving: Serving | None, server: ServerView | None, jobs: list[JobView]) -> Incumbent:
    """Return what serves under the job's model name now; one that no pod could load serves nothing.

    Args:
        serving: where the job's result is to answer.
        server: the ModelServer that will host it, if it exists.
        jobs: the FineTuneJobs whose adapters that server hosts.
    """
    models = sorted(server.status.models if server else [], key=lambda model: -model.weight)
    for model in models:
        if serving is None or model.name != serving.model_name or (model.message and not model.loaded_pods):
            continue
        for job in jobs:
            artifact = job.status.artifact
            if artifact and (job.name, artifact.digest) == (model.job, model.digest):
                return Incumbent(job=job.name, artifact=artifact)
    return Incumbent()


def recorded_incumbent(known: Incumbent | None, attempts: list[Attempt]) -> Incumbent | None:
    """Return the incumbent that was chosen already: the status says so, or the oldest evaluation that is there."""
    if known is not None:
        return known
    evaluations = sorted((one for one in attempts if one.stage is Stage.EVALUATE), key=lambda one: one.number)
    return next((one.incumbent for one in evaluations if one.incumbent), None)
