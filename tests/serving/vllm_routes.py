"""Prints every route that vLLM could have, with all that it hides behind settings, as JSON: method and path."""

import json
from typing import get_args

from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.tasks import FrontendTask, GenerationTask, PoolingTask
from vllm.utils.argparse_utils import FlexibleArgumentParser


def main() -> None:
    """Build vLLM's application as its server does, for every task, without our plugin."""
    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(["any"])
    tasks = (*get_args(GenerationTask), *get_args(PoolingTask), *get_args(FrontendTask))
    routes = build_app(arguments, tasks).routes
    # A mounted application or a WebSocket has no methods.
    found = {(method, route.path) for route in routes for method in getattr(route, "methods", None) or ["GET"]}
    print(json.dumps(sorted(found)))


if __name__ == "__main__":
    main()
