"""The Prometheus metrics of a running training, which the operator scrapes too."""

from prometheus_client import CollectorRegistry, Gauge, start_http_server

_REGISTRY = CollectorRegistry()
_PREFIX = "finetune_train_"

STEP = Gauge(f"{_PREFIX}step", "Completed optimizer steps, over all attempts.", registry=_REGISTRY)
STEPS = Gauge(f"{_PREFIX}steps", "Total optimizer steps.", registry=_REGISTRY)
EPOCH = Gauge(
    f"{_PREFIX}epoch", "Completed passes over the data, with the fraction of the current one.", registry=_REGISTRY
)
LOSS = Gauge(f"{_PREFIX}loss", "Training loss of the last logged step, in nats per token.", registry=_REGISTRY)
LEARNING_RATE = Gauge(f"{_PREFIX}learning_rate", "Learning rate of the last logged step.", registry=_REGISTRY)
REMAINING = Gauge(
    f"{_PREFIX}remaining_seconds", "Estimated seconds to the last step, at the average pace so far.", registry=_REGISTRY
)
CHECKPOINT = Gauge(f"{_PREFIX}checkpoint_step", "Step of the newest complete checkpoint.", registry=_REGISTRY)
TOKENS = Gauge(f"{_PREFIX}tokens", "Tokens trained on in this attempt.", registry=_REGISTRY)


def serve_metrics(port: int) -> None:
    """Serve the metrics over HTTP until the process ends."""
    start_http_server(port, registry=_REGISTRY)
