"""What a pod runs before it is told to stop, so that no request is lost.

From SIGTERM on vLLM answers new requests with errors, also those on connections that clients keep open, and its engine
ends before the answers in flight are written. Hence a pod is told to stop only when nobody asks it any more.
"""

import time
from http.client import HTTPConnection
from pathlib import Path

from finetune_api.contract.mounts import SCRATCH, below
from finetune_api.meta import IN_FLIGHT_METRIC
from prometheus_client.parser import text_string_to_metric_families

from finetune_serving.vllm_config import KEEP_ALIVE_SECONDS

_QUIET_SECONDS = 2 * KEEP_ALIVE_SECONDS
"""Longer than a connection is kept open, and than the cluster's nodes need to forget the pod's address."""
_POLL_SECONDS = 0.5


def marker_of(root: Path) -> Path:
    """Return the file that tells the gateway to close each connection with its answer."""
    return below(root, SCRATCH) / "draining"


def drain(root: Path, port: int, longest: float) -> None:
    """Return once no request has been in flight for a while, or the server is gone.

    Args:
        root: below which the pod's paths lie.
        port: of the server on this machine.
        longest: seconds after which it returns in any case.
    """
    marker_of(root).touch()
    began = last = time.monotonic()
    while last - began < longest:
        try:
            is_busy = _count_in_flight(port) > 0
        except TimeoutError:
            is_busy = True
        except OSError:
            return
        now = time.monotonic()
        last = now if is_busy else last
        if now - last >= _QUIET_SECONDS:
            return
        time.sleep(_POLL_SECONDS)


def _count_in_flight(port: int) -> float:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == IN_FLIGHT_METRIC)
