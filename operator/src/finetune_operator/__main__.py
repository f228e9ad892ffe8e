"""`finetune-operator --settings FILE`."""

import argparse
import asyncio
import os
import socket
import sys
from pathlib import Path

import uvloop

from finetune_operator.health import HEALTH_PORT, METRICS_PORT
from finetune_operator.logs import configure_logs
from finetune_operator.main import run_operator
from finetune_operator.settings import read_settings


def main() -> None:
    """Run the operator; exit 0 when told to stop, 1 on a fault, 78 on wrong settings."""
    parser = argparse.ArgumentParser(prog="finetune-operator", description=__doc__)
    parser.add_argument("--settings", type=Path, required=True, help="file with the administrator's settings")
    parser.add_argument("--health-port", type=int, default=HEALTH_PORT, help="port of /healthz and /readyz")
    parser.add_argument("--metrics-port", type=int, default=METRICS_PORT, help="port of /metrics")
    arguments = parser.parse_args()
    try:
        settings = read_settings(arguments.settings)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(os.EX_CONFIG)
    configure_logs(settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        told = runner.run(run_operator(settings, socket.gethostname(), arguments.health_port, arguments.metrics_port))
    sys.exit(0 if told else 1)


if __name__ == "__main__":
    main()
