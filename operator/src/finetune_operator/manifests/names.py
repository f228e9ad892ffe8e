"""Names, labels and owners of children."""

from finetune_api.contract.jobfile import JobFile
from finetune_api.digest import digest_value
from finetune_api.meta import API_VERSION, ATTEMPT_LABEL, JOB_LABEL, SERVER_LABEL, STAGE_LABEL
from finetune_api.stage import Stage

from finetune_operator.kube.kinds import OWNED_LABEL, Manifest
from finetune_operator.state.views import JobView, ServerView

MANAGED_BY = {"app.kubernetes.io/managed-by": "finetune-operator"}
"""Label of everything that the operator creates."""


def stage_job_name(job: JobView, stage: Stage, attempt: int) -> str:
    """Return the name of an attempt's Job, which differs for another attempt, spec or uid."""
    spec = job.spec.dump_without_scheduling() if job.spec else {}
    return f"{job.name}-{stage.lower()}-{attempt}-{digest_value([job.uid, spec])[:6]}"


def training_service_name(job: JobView) -> str:
    """Return the name of the headless Service for the pods of a training on several nodes."""
    return f"{job.name}-train-{digest_value(job.uid)[:6]}"


def routes_name(server: str) -> str:
    """Return the name of the ConfigMap with the routes of a server."""
    return f"{server}-routes"


def job_file(job: JobView) -> JobFile:
    """Return the file in which pods read their FineTuneJob.

    Raises:
        ValueError: the spec is invalid.
    """
    if job.spec is None:
        raise ValueError(f"{job.name}: {job.problem}")
    return JobFile(job.name, job.uid, job.spec, job.status.warm_start)


def job_labels(job: JobView) -> dict[str, str]:
    """Return the labels of a job's children."""
    return MANAGED_BY | {JOB_LABEL: job.name, OWNED_LABEL: "true"}


def stage_labels(job: JobView, stage: Stage, attempt: int) -> dict[str, str]:
    """Return the labels of an attempt's Job and pod."""
    return job_labels(job) | {STAGE_LABEL: str(stage), ATTEMPT_LABEL: str(attempt)}


def server_labels(server: ServerView) -> dict[str, str]:
    """Return the labels of a server's children."""
    return MANAGED_BY | {SERVER_LABEL: server.name, OWNED_LABEL: "true"}


def build_metadata(owner: JobView | ServerView, name: str, labels: dict[str, str]) -> Manifest:
    """Return the metadata of a child, with its owner as the controller."""
    kind = "FineTuneJob" if isinstance(owner, JobView) else "ModelServer"
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": labels,
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": kind,
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
