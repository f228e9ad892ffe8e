"""Reads the routes file and the API keys periodically, and loads and unloads vLLM's adapters as the routes say."""

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

from finetune_serving.adapters import AdapterPolicy, AdapterRefusedError, check_applied, check_model, copy_adapter
from finetune_serving.gateway.access import Access, read_keys
from finetune_serving.gateway.hosting import Hosting, Version
from finetune_serving.gateway.metrics import ADAPTER_LOADS, LOADED_ADAPTERS, ROUTES_FILES
from finetune_serving.vllm_config import ServerConfig
from finetune_serving.weights import read_shapes

_LOG = logging.getLogger("vllm.finetune")
_POLL_SECONDS = 0.05


class Loader:
    """Keeps vLLM's adapters in line with the routes file; runs as an asyncio task in vLLM's server."""

    def __init__(self, engine: Any, models: Any, config: ServerConfig, hosting: Hosting, access: Access) -> None:
        """Store the collaborators.

        Args:
            engine: vLLM's engine client.
            models: vLLM's `openai_serving_models`, which loads and unloads adapters.
            config: the server's configuration.
            hosting: gets the routes and the outcome of each load.
            access: gets the API keys and their restrictions.
        """
        self._engine, self._models, self._config = engine, models, config
        self._hosting, self._access = hosting, access
        self._routes_text = ""
        """Content of the last routes file, or the error that reading it raised."""

    @cached_property
    def _policy(self) -> AdapterPolicy:
        """The adapters that may be loaded. Read it after the engine has started: only then the model is local."""
        config = self._config
        shapes = read_shapes(config.model, config.revision)
        return AdapterPolicy(Model(uri=config.model_uri, revision=config.revision), config.max_rank, shapes)

    async def run(self) -> None:
        """Poll until the task is cancelled."""
        while True:
            try:
                await self._step()
            except Exception:  # noqa: BLE001 - the next step may succeed
                _LOG.exception("failed to apply the routes; retrying")
            await asyncio.sleep(_POLL_SECONDS)

    async def _step(self) -> None:
        self._read_keys()
        self._read_routes()
        version = self._hosting.next_to_load(time.monotonic())
        if version is not None:
            await self._load(version)
        for name in self._hosting.to_unload(set(self._models.lora_requests)):
            await self._unload(name)
        LOADED_ADAPTERS.set(sum(version.is_loaded for version in self._hosting.desired))

    def _read_keys(self) -> None:
        """Read the API keys. If that fails, the previous keys stay valid; before the first success no key is valid."""
        if not self._config.keys:
            return
        try:
            self._access.keys = read_keys(Path(self._config.keys))
        except OSError as error:
            self._access.keys = self._access.keys or {}
            _LOG.warning("cannot read the API keys: %s", error)

    def _read_routes(self) -> None:
        """Apply the routes file if it has changed. If it is missing or invalid, the previous routes stay."""
        try:
            text = Path(self._config.routes).read_text()
        except OSError as error:
            if self._routes_text != str(error):
                _LOG.warning("cannot read the routes file: %s", error)
                self._routes_text = str(error)
            return
        if text == self._routes_text:
            return
        self._routes_text = text
        try:
            routes = Routes.model_validate_json(text)
        except ValidationError as error:
            ROUTES_FILES.labels("refused").inc()
            _LOG.error("the routes file is invalid, keeping the previous routes: %s", error)
            return
        ROUTES_FILES.labels("taken").inc()
        self._hosting.set_routes(routes)
        self._access.set_policies(routes.keys)

    async def _load(self, version: Version) -> None:
        route = version.route
        source = path_of(route.uri, Path(self._config.root))
        try:
            self._check_chat_template(route)
            if route.kind == "Model":
                await asyncio.to_thread(self._check_own_model, route)
            else:
                adapters = Path(self._config.adapters)
                path = await asyncio.to_thread(copy_adapter, source, route, adapters, self._policy)
                await self._load_into_vllm(route.served_name, path)
        except (AdapterRefusedError, OSError, ValueError) as error:
            ADAPTER_LOADS.labels("refused").inc()
            version.mark_failed(str(error), time.monotonic())
            _LOG.error("cannot load %s of FineTuneJob %s: %s", route.model_name, route.job, error)
            return
        ADAPTER_LOADS.labels("loaded").inc()
        version.mark_loaded()
        _LOG.info("loaded %s as %s", route.version_name, route.served_name)

    def _check_chat_template(self, route: Route) -> None:
        """Check that the version was trained with the chat template that this server renders with."""
        digests = (route.chat_template, self._config.chat_template)
        if digests[0] != digests[1]:
            trained, served = (
                f"model.chatTemplate {digest[:19]}" if digest else "the model's own" for digest in digests
            )
            raise AdapterRefusedError(
                f"it was trained with another chat template ({trained}) than this server renders with ({served}): serve"
                " it on a server with the same model.chatTemplate, or train again"
            )

    def _check_own_model(self, route: Route) -> None:
        """Check that the route's model is the one that this server was started with."""
        uri = self._config.model_uri
        if route.uri != uri:
            raise AdapterRefusedError(f"{route.uri} is a complete model, but this server was started with {uri}")
        check_model(path_of(uri, Path(self._config.root)), route, is_reward=False)

    async def _load_into_vllm(self, name: str, path: Path) -> None:
        from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest

        if name in self._models.lora_requests:
            return
        response = await self._models.load_lora_adapter(LoadLoRAAdapterRequest(lora_name=name, lora_path=str(path)))
        if not isinstance(response, str):
            raise AdapterRefusedError(f"vLLM cannot load it: {response.error.message}")
        lora_id = self._models.lora_requests[name].lora_int_id
        try:
            check_applied(await self._engine.collective_rpc("list_unused_layers", args=(lora_id,)))
        except AdapterRefusedError:
            await self._unload(name)
            raise

    async def _unload(self, name: str) -> None:
        """Unload an adapter by name, and free its slot: vLLM's own unloading leaves the weights in the cache."""
        from vllm.entrypoints.serve.lora.protocol import UnloadLoRAAdapterRequest

        lora_id = self._models.lora_requests[name].lora_int_id
        await self._models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name=name))
        await self._engine.remove_lora(lora_id)
        _LOG.info("unloaded %s", name)
