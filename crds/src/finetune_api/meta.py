"""API group and version, labels and annotations of the operator's children, and ports."""

GROUP = "finetune.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

JOB_LABEL = f"{GROUP}/job"
"""Name of the FineTuneJob that owns a child."""
SERVER_LABEL = f"{GROUP}/server"
"""Name of the ModelServer that owns a child."""
STAGE_LABEL = f"{GROUP}/stage"
"""Stage of a Job and its pods; on children of a FineTuneJob only."""
ATTEMPT_LABEL = f"{GROUP}/attempt"
"""Number of the attempt of the stage, starting at 1."""
APPLIED_ANNOTATION = f"{GROUP}/applied"
"""SHA-256 of the manifest that the operator last applied. It shows whether the desired manifest has changed since."""
JOB_ANNOTATION = f"{GROUP}/job-file"
"""The FineTuneJob, on each pod of a stage. The kubelet mounts it into the pod as a file."""
ROUTES_ANNOTATION = f"{GROUP}/routes"
"""Digest of the routes, on a server's pods. A new value makes the kubelet refresh the mounted file."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""Kueue's label with the LocalQueue of a Job."""

METRICS_PORT = 9400
"""Port on which trainer pods serve Prometheus metrics."""
SERVER_PORT = 8000
"""Port of the OpenAI-compatible API on a server's pods and Service."""
IN_FLIGHT_METRIC = "finetune_requests_in_flight"
"""Metric of a server's pod by which the server is scaled: the number of requests in flight."""
