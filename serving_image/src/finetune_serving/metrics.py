"""What Prometheus sees of each public model name; vLLM's own metrics know the base model only.

The names are those of the routes: what a client writes is never a label.
"""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("finetune_requests", "Requests by model, version and HTTP status.", ["model", "version", "code"])
SECONDS = Histogram("finetune_request_seconds", "Seconds until the last byte of the answer.", ["model"])
LOADS = Counter("finetune_adapter_loads", "Adapters that were loaded or refused.", ["outcome"])
LOADED = Gauge("finetune_adapters_loaded", "Adapters that answer.")
