"""Prints every route of vLLM as JSON, method and path, including those that settings hide."""

import json
from typing import get_args

from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.tasks import FrontendTask, GenerationTask, PoolingTask
from vllm.utils.argparse_utils import FlexibleArgumentParser


def main() -> None:
    """Build vLLM's application as its server does, for all tasks, without our plugin, and print its routes."""
    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(["any"])
    tasks = (*get_args(GenerationTask), *get_args(PoolingTask), *get_args(FrontendTask))
    routes = build_app(arguments, tasks).routes
    # A mounted application or a WebSocket has no methods.
    pairs = {(method, route.path) for route in routes for method in getattr(route, "methods", None) or ["GET"]}
    print(json.dumps(sorted(pairs)))


if __name__ == "__main__":
    main()
