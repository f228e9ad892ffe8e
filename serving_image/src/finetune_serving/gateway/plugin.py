"""The plugin that vLLM loads: our gateway in front of its routes, our loader beside its engine."""

import asyncio
from argparse import Namespace
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from finetune_api.contract.routes import LOADED_PATH

from finetune_serving.gateway.access import Access
from finetune_serving.gateway.drain import marker_of
from finetune_serving.gateway.hosting import Hosting
from finetune_serving.gateway.loader import Loader
from finetune_serving.gateway.middleware import Gateway
from finetune_serving.vllm_config import read_server_config


class FineTunePlugin:
    """An endpoint plugin in the sense of vllm.plugins.endpoint_plugins.interface."""

    name = "finetune"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        """Begin without adapters."""
        self._hosting, self._access = Hosting(), Access()
        self._engine: Any = None
        self._was_settled = False
        self._task: asyncio.Task[None] | None = None

    def attach_router(self, app: FastAPI) -> None:
        """Put the gateway in front of every route, and add two of our own."""
        config = read_server_config()
        if config.keys:
            # Until the keys are read nobody has one.
            self._access.keys = {}
        marker = marker_of(Path(config.root))
        app.add_middleware(Gateway, hosting=self._hosting, access=self._access, is_draining=marker.exists)

        @app.get("/readyz")
        async def readyz() -> Response:
            """Answer 200 once every adapter of the start was loaded or refused, while vLLM is healthy.

            A later adapter that still loads takes no pod out: its siblings go on answering.
            """
            self._was_settled = self._was_settled or (self._engine is not None and self._hosting.is_settled())
            if self._was_settled:
                await self._engine.check_health()
            return Response(status_code=200 if self._was_settled else 503)

        @app.get(LOADED_PATH)
        async def loaded() -> dict[str, Any]:
            """Say what is really loaded."""
            return self._hosting.report().to_dict()

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:  # noqa: ARG002 - vLLM's protocol
        """Begin to follow the routes."""
        self._engine = engine_client
        self._hosting.max_model_len = int(engine_client.model_config.max_model_len)
        loader = Loader(engine_client, state.openai_serving_models, read_server_config(), self._hosting, self._access)
        self._task = asyncio.create_task(loader.run())
