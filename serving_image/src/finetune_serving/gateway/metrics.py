"""Prometheus metrics by public model name. vLLM's own metrics only have the base model's name.

The values of `model` are names of the routes, `base` or `unknown`, never a client's text.
"""

from finetune_api.meta import IN_FLIGHT_METRIC
from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter(
    "finetune_requests", "Finished requests by model, version and HTTP status.", ["model", "version", "code"]
)
REQUEST_SECONDS = Histogram(
    "finetune_request_seconds", "Seconds from the request to the last byte of its response.", ["model", "version"]
)
FIRST_BYTE_SECONDS = Histogram(
    "finetune_time_to_first_byte_seconds",
    "Seconds from the request to the first byte of its response.",
    ["model", "version"],
)
PROMPT_TOKENS = Counter("finetune_prompt_tokens", "Prompt tokens of answered requests.", ["model", "version"])
GENERATED_TOKENS = Counter("finetune_generated_tokens", "Generated tokens.", ["model", "version"])
IN_FLIGHT = Gauge(IN_FLIGHT_METRIC, "Requests in flight.")
ROUTES_FILES = Counter("finetune_routes", "Routes files that were read, by outcome: taken or refused.", ["outcome"])
ADAPTER_LOADS = Counter(
    "finetune_adapter_loads", "Attempts to load an adapter, by outcome: loaded or refused.", ["outcome"]
)
LOADED_ADAPTERS = Gauge("finetune_adapters_loaded", "Adapters with a route that are loaded.")
