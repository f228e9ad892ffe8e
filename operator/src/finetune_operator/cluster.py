"""The only file that talks to the Kubernetes API: lists, server-side apply, status, annotations, events, Leases."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

from kubernetes.aio import client, config
from kubernetes.aio.client.rest import ApiException

from finetune_operator.kinds import LEASE, Kind, Manifest, kind_of

FIELD_MANAGER = "finetune-operator"
_REPLICAS_MANAGER = f"{FIELD_MANAGER}-replicas"
_TIMEOUT = 10.0
_PAGE = 500


class ApiError(Exception):
    """The API server refused a request, or could not be reached (code 0)."""

    def __init__(self, code: int, message: str) -> None:
        """Keep the HTTP status and the server's own words."""
        super().__init__(f"{code}: {message}" if code else message)
        self.code = code
        self.message = message


class Cluster:
    """A connection to the API server."""

    def __init__(self, api: client.ApiClient, check: Callable[[], None] = lambda: None) -> None:
        """Wrap a client of the official library; `check` raises where nothing may be written any more."""
        self._api, self._check = api, check

    def fenced(self, check: Callable[[], None]) -> "Cluster":
        """Return the same connection, with a check before each write."""
        return Cluster(self._api, check)

    async def list_all(self, kind: Kind) -> tuple[list[Manifest], int]:
        """Return every object of a kind, and the list's resource version."""
        items: list[Manifest] = []
        query: dict[str, str] = {"limit": str(_PAGE)}
        if kind.selector:
            query["labelSelector"] = kind.selector
        while True:
            page = await self._request("GET", kind.path(), query)
            items += page["items"]
            token = page["metadata"].get("continue")
            if not token:
                break
            query["continue"] = token
        for item in items:
            item |= {"apiVersion": kind.api_version, "kind": kind.name}
        return items, int(page["metadata"]["resourceVersion"])

    async def apply(self, manifest: Manifest) -> Manifest:
        """Create or change an object by server-side apply; return it as it is now."""
        metadata = manifest["metadata"]
        path = kind_of(manifest).path(metadata["namespace"], metadata["name"])
        return await self._apply(path, manifest)

    async def keep_replicas(self, deployment: Manifest) -> None:
        """Let a Deployment's number of pods stand under a name of its own, until an autoscaler sets it.

        Server-side apply would set it to 1 as soon as nobody names it any more.
        """
        metadata = {name: deployment["metadata"][name] for name in ("namespace", "name", "uid")}
        kept = {name: deployment[name] for name in ("apiVersion", "kind")} | {"metadata": metadata}
        path = kind_of(deployment).path(metadata["namespace"], metadata["name"])
        await self._apply(path, kept | {"spec": {"replicas": deployment["spec"]["replicas"]}}, _REPLICAS_MANAGER)

    async def apply_status(self, manifest: Manifest) -> Manifest:
        """Write a status. `metadata.uid` keeps it from an object that only has the same name."""
        metadata = manifest["metadata"]
        path = kind_of(manifest).path(metadata["namespace"], metadata["name"])
        return await self._apply(f"{path}/status", manifest)

    async def annotate(self, kind: Kind, namespace: str, name: str, annotations: dict[str, str]) -> Manifest:
        """Set annotations of an object that someone else made."""
        body = {"metadata": {"annotations": annotations}}
        query = {"fieldManager": FIELD_MANAGER}
        path = kind.path(namespace, name)
        return await self._request("PATCH", path, query, body, "application/merge-patch+json")

    async def create_event(self, event: Manifest) -> None:
        """Tell an event once: its name is made from what it says."""
        try:
            path = f"/apis/events.k8s.io/v1/namespaces/{event['metadata']['namespace']}/events"
            await self._request("POST", path, {"fieldManager": FIELD_MANAGER}, event, "application/json")
        except ApiError as error:
            if error.code != 409:
                raise

    async def get_lease(self, namespace: str, name: str) -> Manifest | None:
        """Return a Lease, or None."""
        try:
            return await self._request("GET", LEASE.path(namespace, name), {})
        except ApiError as error:
            if error.code != 404:
                raise
        return None

    async def write_lease(self, lease: Manifest) -> Manifest | None:
        """Create a Lease, or replace the version that it names; return None where another was quicker."""
        metadata = lease["metadata"]
        is_known = "resourceVersion" in metadata
        method, name = ("PUT", metadata["name"]) if is_known else ("POST", None)
        path = LEASE.path(metadata["namespace"], name)
        try:
            return await self._request(method, path, {}, lease, "application/json")
        except ApiError as error:
            if error.code != 409 and not (is_known and error.code == 404):
                raise
        return None

    async def _apply(self, path: str, manifest: Manifest, manager: str = FIELD_MANAGER) -> Manifest:
        query = {"fieldManager": manager, "force": "true"}
        return await self._request("PATCH", path, query, manifest, "application/apply-patch+yaml")

    async def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        body: Manifest | None = None,
        content_type: str | None = None,
    ) -> Manifest:
        headers: dict[str, str] = {"Accept": "application/json"}
        if content_type:
            headers["Content-Type"] = content_type
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = f"{self._api.configuration.host}{path}?{urlencode(query)}"
        if method != "GET":
            self._check()
        try:
            response = await self._api.call_api(
                method, url, header_params=headers, body=body, _request_timeout=_TIMEOUT
            )
            data = await response.read()
        except ApiException as error:
            raise ApiError(int(error.status or 0), str(error.body or error.reason)) from error
        except (OSError, TimeoutError) as error:
            raise ApiError(0, f"the API server cannot be reached: {error!r}") from error
        parsed: Any = json.loads(data)
        if not 200 <= response.status < 300:
            raise ApiError(response.status, str(parsed.get("message", parsed)))
        return dict(parsed)


@asynccontextmanager
async def connect() -> AsyncIterator[Cluster]:
    """Connect as the pod's service account, or as the current context of a kubeconfig."""
    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        await config.load_kube_config(client_configuration=configuration)
    async with client.ApiClient(configuration) as api:
        yield Cluster(api)
