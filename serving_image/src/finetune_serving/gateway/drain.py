"""The preStop hook of a server's pod: it delays SIGTERM until no request is in flight, so that none is lost.

After SIGTERM vLLM answers new requests with errors, also on connections that clients keep open, and its engine ends
before the responses in flight are written.
"""

import time
from http.client import HTTPConnection
from pathlib import Path

from finetune_api.contract.mounts import SCRATCH, below
from finetune_api.meta import IN_FLIGHT_METRIC
from prometheus_client.parser import text_string_to_metric_families

from finetune_serving.vllm_config import KEEP_ALIVE_SECONDS

_IDLE_SECONDS = 2 * KEEP_ALIVE_SECONDS
"""Longer than idle connections stay open, and than the cluster's nodes need to remove the pod from the Service."""
_POLL_SECONDS = 0.5


def build_drain_marker_path(root: Path) -> Path:
    """Return the path of the file that makes the gateway close each connection after its response."""
    return below(root, SCRATCH) / "draining"


def drain(root: Path, port: int, longest: float) -> None:
    """Return after `_IDLE_SECONDS` without a request in flight, or when the server does not run.

    Args:
        root: the directory below which the pod's volumes are mounted.
        port: port of the server on this machine.
        longest: seconds after which the function returns in any case.
    """
    build_drain_marker_path(root).touch()
    started = last_busy = time.monotonic()
    while last_busy - started < longest:
        try:
            is_busy = _read_in_flight(port) > 0
        except TimeoutError:
            is_busy = True
        except OSError:
            return
        now = time.monotonic()
        last_busy = now if is_busy else last_busy
        if now - last_busy >= _IDLE_SECONDS:
            return
        time.sleep(_POLL_SECONDS)


def _read_in_flight(port: int) -> float:
    """Return the number of requests in flight from the server's metrics."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == IN_FLIGHT_METRIC)
