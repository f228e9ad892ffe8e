"""What Prometheus sees of the operator. No user's string is a label."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

JOBS = Gauge(
    "finetune_operator_jobs",
    "FineTuneJobs by stage and reason, counted by the operator that leads.",
    ["stage", "reason"],
    registry=REGISTRY,
)
STAGE_SECONDS = Histogram(
    "finetune_operator_stage_seconds",
    "Seconds from the start of an attempt to its end.",
    ["stage", "outcome"],
    buckets=(5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 48 * 3600),
    registry=REGISTRY,
)
RECONCILE_SECONDS = Histogram(
    "finetune_operator_reconcile_seconds", "Seconds of one reconciliation.", ["kind"], registry=REGISTRY
)
RECONCILE_ERRORS = Counter(
    "finetune_operator_reconcile_errors_total",
    "Reconciliations that failed and come again.",
    ["kind"],
    registry=REGISTRY,
)
WRITES = Counter("finetune_operator_writes_total", "Writes to the API server.", ["kind", "verb"], registry=REGISTRY)
QUEUE_DEPTH = Gauge("finetune_operator_queue_depth", "Objects that wait to be reconciled.", registry=REGISTRY)
AUDIT_FINDINGS = Counter(
    "finetune_operator_audit_findings_total", "Changes that the watches missed.", ["kind"], registry=REGISTRY
)
LEADER = Gauge("finetune_operator_leader", "1 where this operator leads, 0 where it stands by.", registry=REGISTRY)
