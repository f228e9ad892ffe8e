"""The plugin that vLLM loads: it adds the gateway as middleware, two HTTP routes, and the loader as a task."""

import asyncio
from argparse import Namespace
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from finetune_api.contract.routes import LOADED_PATH
from finetune_api.modelserver import EngineStatus

from finetune_serving.gateway.access import Access
from finetune_serving.gateway.drain import build_drain_marker_path
from finetune_serving.gateway.hosting import Hosting
from finetune_serving.gateway.loader import Loader
from finetune_serving.gateway.middleware import Gateway
from finetune_serving.vllm_config import read_server_config


class FineTunePlugin:
    """Implements vLLM's vllm.plugins.endpoint_plugins.interface."""

    name = "finetune"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        """Start without adapters."""
        self._hosting, self._access = Hosting(), Access()
        self._engine: Any = None
        self._is_ready = False
        self._task: asyncio.Task[None] | None = None

    def attach_router(self, app: FastAPI) -> None:
        """Add the gateway in front of all routes, and the routes `/readyz` and LOADED_PATH."""
        config = read_server_config()
        self._hosting.chat_template = config.chat_template
        if config.keys:
            # Until the keys have been read no key is valid.
            self._access.keys = {}
        self._hosting.engine = EngineStatus(
            tool_call_parser=config.tool_call_parser,
            reasoning_parser=config.reasoning_parser,
            message=config.parser_message,
        )
        marker = build_drain_marker_path(Path(config.root))
        app.add_middleware(Gateway, hosting=self._hosting, access=self._access, is_draining=marker.exists)

        @app.get("/readyz")
        async def readyz() -> Response:
            """Return 200 if vLLM is healthy and every adapter of the first routes was loaded or refused, else 503.

            Once ready, the pod stays ready while later adapters load: the loaded ones keep answering.
            """
            self._is_ready = self._is_ready or (self._engine is not None and self._hosting.is_settled())
            if self._is_ready:
                await self._engine.check_health()
            return Response(status_code=200 if self._is_ready else 503)

        @app.get(LOADED_PATH)
        async def loaded() -> dict[str, Any]:
            """Return the state of each route on this pod."""
            return self._hosting.build_report().to_dict()

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:  # noqa: ARG002 - vLLM calls it
        """Start the loader."""
        self._engine = engine_client
        self._hosting.max_model_len = int(engine_client.model_config.max_model_len)
        loader = Loader(engine_client, state.openai_serving_models, read_server_config(), self._hosting, self._access)
        self._task = asyncio.create_task(loader.run())
