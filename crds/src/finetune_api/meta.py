"""The group and version, and the labels and annotations that the operator writes on its children."""

GROUP = "finetune.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

JOB_LABEL = f"{GROUP}/job"
"""Name of the FineTuneJob that a child belongs to."""
SERVER_LABEL = f"{GROUP}/server"
"""Name of the ModelServer that a child belongs to."""
STAGE_LABEL = f"{GROUP}/stage"
"""Prepare, Train or Evaluate; on children of a FineTuneJob only."""
ATTEMPT_LABEL = f"{GROUP}/attempt"
"""Number of the attempt at the stage, from 1."""
APPLIED_ANNOTATION = f"{GROUP}/applied"
"""SHA-256 of the manifest as the operator last wrote it: by it a new wish is told from an old one."""
JOB_ANNOTATION = f"{GROUP}/job-file"
"""The FineTuneJob on each pod of a stage, from where the kubelet hands it to the pod as a file."""
ROUTES_ANNOTATION = f"{GROUP}/routes"
"""Digest of the routes on a server's pod; a new value makes the kubelet refresh the mounted file."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""Kueue's own: the LocalQueue that a Job waits in."""

METRICS_PORT = 9400
"""Port on which trainer pods serve Prometheus metrics."""
SERVER_PORT = 8000
"""Port of the OpenAI-compatible API on a server's pods and Service."""
IN_FLIGHT_METRIC = "finetune_requests_in_flight"
"""Metric of a server's pod by which it is scaled: requests that it answers just now."""
