"""Follows the routes file and brings vLLM's adapters in line with it, one at a time."""

import asyncio
import logging
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune_api.contract.mounts import path_of
from finetune_api.contract.routes import Route, Routes
from finetune_api.modelserver import Model
from pydantic import ValidationError

from finetune_serving.adapters import AdapterRefusedError, Limits, check_model, fetch_adapter
from finetune_serving.gateway.access import Access, read_keys
from finetune_serving.gateway.hosting import Hosting, Version
from finetune_serving.gateway.metrics import LOADED, LOADS, ROUTES
from finetune_serving.vllm_config import ServerConfig
from finetune_serving.weights import read_shapes

_LOG = logging.getLogger("vllm.finetune")
_POLL_SECONDS = 0.05


class Loader:
    """Runs as a task beside vLLM's server."""

    def __init__(self, engine: Any, models: Any, config: ServerConfig, hosting: Hosting, access: Access) -> None:
        """Load through vLLM's own `openai_serving_models`."""
        self._engine, self._models, self._config = engine, models, config
        self._hosting, self._access = hosting, access
        self._text = ""

    @cached_property
    def _limits(self) -> Limits:
        """The model is on this machine as soon as the engine has loaded it."""
        config = self._config
        shapes = read_shapes(config.model, config.revision)
        return Limits(Model(uri=config.model_uri, revision=config.revision), config.max_rank, shapes)

    async def run(self) -> None:
        """Look for new routes and load for ever."""
        while True:
            try:
                await self._step()
            except Exception:  # noqa: BLE001 - whatever went wrong, the next look may find it mended
                _LOG.exception("the routes could not be followed; trying again")
            await asyncio.sleep(_POLL_SECONDS)

    async def _step(self) -> None:
        self._read_keys()
        self._read_routes()
        version = self._hosting.next_to_load(time.monotonic())
        if version is not None:
            await self._load(version)
        for name in self._hosting.to_drop(set(self._models.lora_requests)):
            await self._unload(name)
        LOADED.set(sum(version.is_loaded for version in self._hosting.wanted))

    def _read_keys(self) -> None:
        """Take over the API keys; while they cannot be read the old ones hold, and before the first time none does."""
        if not self._config.keys:
            return
        try:
            self._access.keys = read_keys(Path(self._config.keys))
        except OSError as error:
            self._access.keys = self._access.keys or {}
            _LOG.warning("the API keys cannot be read: %s", error)

    def _read_routes(self) -> None:
        """Take over the file when it changed; one that cannot be read leaves everything as it is."""
        try:
            text = Path(self._config.routes).read_text()
        except OSError as error:
            if self._text != str(error):
                _LOG.warning("no routes: %s", error)
                self._text = str(error)
            return
        if text == self._text:
            return
        self._text = text
        try:
            routes = Routes.model_validate_json(text)
        except ValidationError as error:
            ROUTES.labels("refused").inc()
            _LOG.error("the routes are wrong and the old ones stay: %s", error)
            return
        ROUTES.labels("taken").inc()
        self._hosting.want(routes)
        self._access.limit(routes.keys)

    async def _load(self, version: Version) -> None:
        route = version.route
        source = path_of(route.uri, Path(self._config.root))
        try:
            if route.kind == "Model":
                await asyncio.to_thread(self._check_own_model, route)
            else:
                adapters = Path(self._config.adapters)
                path = await asyncio.to_thread(fetch_adapter, source, route, adapters, self._limits)
                await self._hand_over(route.served_name, path)
        except (AdapterRefusedError, OSError, ValueError) as error:
            LOADS.labels("refused").inc()
            version.fail(str(error), time.monotonic())
            _LOG.error("%s of job %s is not loaded: %s", route.model_name, route.job, error)
            return
        LOADS.labels("loaded").inc()
        version.loaded()
        _LOG.info("%s answers as %s", route.served_name, route.version_name)

    def _check_own_model(self, route: Route) -> None:
        """Check that the server was started with the very model of a route."""
        uri = self._config.model_uri
        if route.uri != uri:
            raise AdapterRefusedError(f"{route.uri} is a whole model, and this server was started with {uri}")
        check_model(path_of(uri, Path(self._config.root)), route, is_reward=False)

    async def _hand_over(self, name: str, path: Path) -> None:
        from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest

        if name in self._models.lora_requests:
            return
        answer = await self._models.load_lora_adapter(LoadLoRAAdapterRequest(lora_name=name, lora_path=str(path)))
        if not isinstance(answer, str):
            raise AdapterRefusedError(f"vLLM refuses it: {answer.error.message}")

    async def _unload(self, name: str) -> None:
        """Forget the name, and free the slot: vLLM's own unloading leaves the weights in the cache."""
        from vllm.entrypoints.serve.lora.protocol import UnloadLoRAAdapterRequest

        number = self._models.lora_requests[name].lora_int_id
        await self._models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name=name))
        await self._engine.remove_lora(number)
        _LOG.info("%s is dropped", name)
