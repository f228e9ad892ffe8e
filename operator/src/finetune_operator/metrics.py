"""The operator's Prometheus metrics. No string of a user becomes a label value."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

JOBS = Gauge(
    "finetune_operator_jobs",
    "FineTuneJobs by stage and reason, counted by the leader.",
    ["stage", "reason"],
    registry=REGISTRY,
)
STAGE_SECONDS = Histogram(
    "finetune_operator_stage_seconds",
    "Duration of an attempt in seconds.",
    ["stage", "outcome"],
    buckets=(5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 48 * 3600),
    registry=REGISTRY,
)
RECONCILE_SECONDS = Histogram(
    "finetune_operator_reconcile_seconds", "Duration of one reconciliation in seconds.", ["kind"], registry=REGISTRY
)
RECONCILE_ERRORS = Counter(
    "finetune_operator_reconcile_errors_total",
    "Reconciliations that failed and were requeued.",
    ["kind"],
    registry=REGISTRY,
)
WRITES = Counter("finetune_operator_writes_total", "Writes to the API server.", ["kind", "verb"], registry=REGISTRY)
QUEUE_DEPTH = Gauge("finetune_operator_queue_depth", "Objects that are ready to be reconciled.", registry=REGISTRY)
MISSED_CHANGES = Counter(
    "finetune_operator_resync_findings_total",
    "Changes that the watches missed and the resync found.",
    ["kind"],
    registry=REGISTRY,
)
LEADER = Gauge("finetune_operator_leader", "1 if this operator is the leader, 0 if it is a standby.", registry=REGISTRY)
