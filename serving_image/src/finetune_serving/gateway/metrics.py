"""What Prometheus sees of each public model name; vLLM's own metrics know the base model only.

The names are those of the routes: what a client writes is never a label.
"""

from finetune_api.meta import IN_FLIGHT_METRIC
from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("finetune_requests", "Requests by model, version and HTTP status.", ["model", "version", "code"])
SECONDS = Histogram("finetune_request_seconds", "Seconds until the last byte of the answer.", ["model", "version"])
FIRST_BYTE_SECONDS = Histogram(
    "finetune_time_to_first_byte_seconds", "Seconds until the first byte of the answer.", ["model", "version"]
)
TOKENS_IN = Counter("finetune_prompt_tokens", "Tokens of the prompts that were answered.", ["model", "version"])
TOKENS_OUT = Counter("finetune_generated_tokens", "Tokens of the answers.", ["model", "version"])
IN_FLIGHT = Gauge(IN_FLIGHT_METRIC, "Requests that are answered just now.")
ROUTES = Counter("finetune_routes", "Routes files that were taken over or refused.", ["outcome"])
LOADS = Counter("finetune_adapter_loads", "Adapters that were loaded or refused.", ["outcome"])
LOADED = Gauge("finetune_adapters_loaded", "Adapters that answer.")
