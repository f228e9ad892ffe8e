"""What Prometheus and the operator see of a training while it runs."""

from prometheus_client import CollectorRegistry, Gauge, start_http_server

_REGISTRY = CollectorRegistry()
_PREFIX = "finetune_train_"

STEP = Gauge(f"{_PREFIX}step", "Optimizer steps done, over all attempts.", registry=_REGISTRY)
STEPS = Gauge(f"{_PREFIX}steps", "Optimizer steps in all.", registry=_REGISTRY)
EPOCH = Gauge(f"{_PREFIX}epoch", "Passes over the data done.", registry=_REGISTRY)
LOSS = Gauge(f"{_PREFIX}loss", "Training loss of the last logged step, nats a token.", registry=_REGISTRY)
LEARNING_RATE = Gauge(f"{_PREFIX}learning_rate", "Learning rate of the last logged step.", registry=_REGISTRY)
REMAINING = Gauge(f"{_PREFIX}remaining_seconds", "Seconds left at the present pace.", registry=_REGISTRY)
CHECKPOINT = Gauge(f"{_PREFIX}checkpoint_step", "Step of the newest whole checkpoint.", registry=_REGISTRY)
TOKENS = Gauge(f"{_PREFIX}tokens", "Tokens trained on in this attempt.", registry=_REGISTRY)


def serve_metrics(port: int) -> None:
    """Answer scrapes until the process ends."""
    start_http_server(port, registry=_REGISTRY)
