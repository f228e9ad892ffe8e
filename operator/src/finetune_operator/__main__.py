"""`finetune-operator --settings FILE`."""

import argparse
import asyncio
import gc
import os
import socket
import sys
import uuid
from pathlib import Path

import uvloop

from finetune_operator.health import HEALTH_PORT, METRICS_PORT
from finetune_operator.kube.leader import LeaderCandidate
from finetune_operator.kube.lease import SHORTEST_LEASE, LeaseTiming
from finetune_operator.logs import configure_logs
from finetune_operator.main import run_operator
from finetune_operator.settings import read_settings

_GARBAGE = 10_000
"""New objects after which Python collects garbage. With the default of 700, garbage collection takes more than half of
the CPU time of the first list, which creates millions of objects that all stay alive (docs/scale.md)."""


def main() -> None:
    """Run the operator; exit 0 after a signal, 75 after losing the leadership, 1 on a fault, 78 on invalid settings."""
    parser = argparse.ArgumentParser(prog="finetune-operator", description=__doc__)
    parser.add_argument("--settings", type=Path, required=True, help="the administrator's settings, a YAML file")
    parser.add_argument("--health-port", type=int, default=HEALTH_PORT, help="port of /healthz and /readyz")
    parser.add_argument("--metrics-port", type=int, default=METRICS_PORT, help="port of /metrics")
    parser.add_argument("--namespace", default="default", help="namespace of the Lease for leader election")
    parser.add_argument("--lease", default="finetune-operator", help="name of the Lease for leader election")
    parser.add_argument("--lease-seconds", type=_seconds, default=15, help="duration of the Lease")
    arguments = parser.parse_args()
    try:
        settings = read_settings(arguments.settings)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(os.EX_CONFIG)
    configure_logs(settings.log_level)
    gc.set_threshold(_GARBAGE)
    # A pod's name stays unique after a restart: the kubelet starts a container only after the previous one has ended.
    identity = os.environ.get("POD_NAME") or f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
    candidate = LeaderCandidate(arguments.namespace, arguments.lease, identity, LeaseTiming(arguments.lease_seconds))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(run_operator(settings, candidate, arguments.health_port, arguments.metrics_port))
    sys.exit(status)


def _seconds(text: str) -> int:
    seconds = int(text)
    if seconds < SHORTEST_LEASE:
        raise argparse.ArgumentTypeError(f"must be at least {SHORTEST_LEASE}, so that the leader can renew it in time")
    return seconds


if __name__ == "__main__":
    main()
