"""The only file that talks to the Kubernetes API: lists, creates, updates, status writes, events, Leases.

Every write has a precondition: a create needs a free name, an update one resource version of the object. A late write
that is based on a stale cache therefore changes nothing.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.rest import ApiException, RESTResponse

from finetune_operator.kube.kinds import LEASE, POD, Kind, Manifest, kind_of
from finetune_operator.metrics import WRITES

FIELD_MANAGER = "finetune-operator"
_TIMEOUT = 10.0
_WATCH_SECONDS = 290
"""The API server ends a watch after this time; the client's own timeout is a little longer."""
_PAGE = 500
_JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
_METADATA_ONLY = "as={};g=meta.k8s.io;v=v1,application/json"


class ApiError(Exception):
    """The API server refused a request, or could not be reached (code 0)."""

    def __init__(self, code: int, message: str, reason: str = "") -> None:
        """Store the HTTP status, the server's message, and its reason, which distinguishes errors of one status."""
        super().__init__(f"{code}: {message}" if code else message)
        self.code = code
        self.message = message
        self.reason = reason


class KubeClient:
    """A connection to the API server."""

    def __init__(self, api: client.ApiClient, check: Callable[[], None] = lambda: None) -> None:
        """Wrap a client of the official library; `check` runs before each write and raises to prevent it."""
        self._api, self._check = api, check

    def fenced(self, check: Callable[[], None]) -> "KubeClient":
        """Return a client of the same connection that runs `check` before each write."""
        return KubeClient(self._api, check)

    async def list_all(self, kind: Kind, *, metadata_only: bool = False) -> tuple[list[Manifest], int]:
        """Return all objects of a kind, and the resource version of the list."""
        items: list[Manifest] = []
        query = {"limit": str(_PAGE)} | _selection(kind)
        accept = "PartialObjectMetadataList" if metadata_only else None
        while True:
            page = await self._request("GET", kind.path(), query, metadata_as=accept)
            # `items` is null in an empty list of metadata.
            items += page["items"] or []
            token = page["metadata"].get("continue")
            if not token:
                break
            query["continue"] = token
        for item in items:
            item |= {"apiVersion": kind.api_version, "kind": kind.name}
        return items, int(page["metadata"]["resourceVersion"])

    async def get(self, kind: Kind, namespace: str, name: str, *, metadata_only: bool = False) -> Manifest | None:
        """Return an object, with or without the label that its kind is watched by; None if it does not exist."""
        query = {"fieldSelector": f"metadata.name={name}"}
        accept = "PartialObjectMetadataList" if metadata_only else None
        page = await self._request("GET", kind.path(namespace), query, metadata_as=accept)
        # `items` is null in an empty list of metadata.
        for item in page["items"] or []:
            return dict(item) | {"apiVersion": kind.api_version, "kind": kind.name}
        return None

    async def list_pods(self, namespace: str, job: str) -> list[Manifest]:
        """Return the current pods of a Job."""
        page = await self._request("GET", POD.path(namespace), {"labelSelector": f"{_JOB_NAME_LABEL}={job}"})
        return [dict(item) | {"apiVersion": POD.api_version, "kind": POD.name} for item in page["items"]]

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object and return it with the metadata that the API server gave it.

        Raises:
            ApiError: with the reason `AlreadyExists` if the name is taken.
        """
        return await self._write("POST", kind_of(manifest).path(manifest["metadata"]["namespace"]), manifest)

    async def update(self, manifest: Manifest) -> Manifest:
        """Replace the version of an object that `metadata.resourceVersion` names.

        Raises:
            ApiError: 409 if the object has changed since.
        """
        return await self._write("PUT", _path_of(manifest), manifest)

    async def update_status(self, manifest: Manifest) -> Manifest:
        """Replace the status of the version of an object that `metadata.resourceVersion` names.

        Raises:
            ApiError: 409 if the object has changed since.
        """
        return await self._write("PUT", f"{_path_of(manifest)}/status", manifest)

    async def patch(self, kind: Kind, namespace: str, name: str, body: Manifest) -> Manifest:
        """Apply a JSON merge patch; return the patched object."""
        path = kind.path(namespace, name)
        query = {"fieldManager": FIELD_MANAGER}
        patched = await self._request("PATCH", path, query, body, "application/merge-patch+json")
        WRITES.labels(kind.name, "patch").inc()
        return patched

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str, version: str) -> Manifest:
        """Delete exactly this version of an object; return the object, now with a deletion timestamp.

        Foreground deletion removes its dependents first: a Job stays until its last pod has ended.
        """
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Foreground",
            "preconditions": {"uid": uid, "resourceVersion": version},
        }
        deleted = await self._request("DELETE", kind.path(namespace, name), {}, options)
        WRITES.labels(kind.name, "delete").inc()
        return deleted

    async def create_event(self, event: Manifest) -> None:
        """Create an event, once: its name is derived from its content, so a repeated create is not an error."""
        try:
            path = f"/api/v1/namespaces/{event['metadata']['namespace']}/events"
            await self._request("POST", path, {"fieldManager": FIELD_MANAGER}, event)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        WRITES.labels("Event", "post").inc()

    async def get_lease(self, namespace: str, name: str) -> Manifest | None:
        """Return a Lease; None if it does not exist."""
        try:
            return _check_lease(await self._request("GET", LEASE.path(namespace, name), {}))
        except ApiError as error:
            if error.code != 404:
                raise
        return None

    async def watch_lease(self, lease: Manifest) -> AsyncGenerator[Manifest | None]:
        """Yield the versions of a Lease that follow the given one, None when it is deleted.

        Ends when the API server ends the watch or has compacted the given version away (410).
        """
        metadata = lease["metadata"]
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={metadata['name']}",
            "resourceVersion": metadata["resourceVersion"],
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        try:
            async with aclosing(self._watch(LEASE.path(metadata["namespace"]), query)) as events:
                async for event_type, manifest in events:
                    yield None if event_type == "DELETED" else _check_lease(manifest)
        except ApiError as error:
            if error.code != 410:
                raise

    async def write_lease(self, lease: Manifest) -> Manifest | None:
        """Create a Lease, or replace the version that it names; return None if another writer was faster."""
        metadata = lease["metadata"]
        exists = "resourceVersion" in metadata
        method, name = ("PUT", metadata["name"]) if exists else ("POST", None)
        try:
            return await self._request(method, LEASE.path(metadata["namespace"], name), {}, lease)
        except ApiError as error:
            if error.code != 409 and not (exists and error.code == 404):
                raise
        return None

    async def _write(self, method: str, path: str, manifest: Manifest) -> Manifest:
        """Send an object and request only the metadata in the response: the rest equals what was sent."""
        query = {"fieldManager": FIELD_MANAGER}
        response = await self._request(method, path, query, manifest, metadata_as="PartialObjectMetadata")
        WRITES.labels(manifest["kind"], method.lower()).inc()
        return manifest | {"metadata": response["metadata"]}

    async def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        body: Manifest | None = None,
        content_type: str = "application/json",
        metadata_as: str | None = None,
    ) -> Manifest:
        accept = f";{_METADATA_ONLY.format(metadata_as)}" if metadata_as else ""
        headers: dict[str, str] = {"Accept": f"application/json{accept}", "Content-Type": content_type}
        with _translate_errors():
            response = await self._send(method, path, query, headers, body, _TIMEOUT)
            return dict(json.loads(await response.read()))

    async def _watch(self, path: str, query: dict[str, str]) -> AsyncGenerator[tuple[str, Manifest]]:
        """Yield the events of a watch until the API server ends it."""
        timeout = aiohttp.ClientTimeout(total=_WATCH_SECONDS + _TIMEOUT)
        with _translate_errors():
            response = (await self._send("GET", path, query, {"Accept": "application/json"}, None, timeout)).response
            try:
                async for line in response.content:
                    event = json.loads(line)
                    event_type, manifest = str(event["type"]), dict(event["object"])
                    if event_type == "ERROR":
                        raise _build_error(int(manifest.get("code") or 0), json.dumps(manifest))
                    yield event_type, manifest
            finally:
                response.close()

    async def _send(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        headers: dict[str, str],
        body: Manifest | None,
        timeout: float | aiohttp.ClientTimeout,  # noqa: ASYNC109 - the client's own
    ) -> RESTResponse:
        """Return a response with a status of 2xx.

        Raises:
            ApiError: the response has another status.
        """
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = f"{self._api.configuration.host}{path}?{urlencode(query)}"
        if method != "GET":
            self._check()
        response = await self._api.call_api(method, url, header_params=headers, body=body, _request_timeout=timeout)
        if not 200 <= response.status < 300:
            raise _build_error(response.status, (await response.read()).decode(errors="replace"))
        return response


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise the libraries' errors as ApiError: no response, or one that cannot be parsed."""
    try:
        yield
    except ApiException as error:
        raise _build_error(int(error.status or 0), str(error.body or error.reason)) from error
    except (OSError, TimeoutError, aiohttp.ClientError) as error:
        raise ApiError(0, f"cannot reach the API server: {error!r}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ApiError(0, f"the API server sent an unexpected response: {error!r}") from error


def _build_error(code: int, text: str) -> ApiError:
    """Return the error for a response, whose body is a `Status` unless a proxy sent it."""
    try:
        status = json.loads(text)
        return ApiError(code, str(status["message"]), str(status.get("reason", "")))
    except (ValueError, TypeError, KeyError, AttributeError):
        return ApiError(code, text[:1024])


def _check_lease(manifest: Manifest) -> Manifest:
    """Return a Lease after checking that it has the metadata that leader election needs.

    Raises:
        ApiError: the metadata is incomplete.
    """
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict) or not {"namespace", "name", "resourceVersion"} <= metadata.keys():
        raise ApiError(0, "the API server sent a Lease without name, namespace or resourceVersion")
    return manifest


def _selection(kind: Kind) -> dict[str, str]:
    return {"labelSelector": kind.selector} if kind.selector else {}


def _path_of(manifest: Manifest) -> str:
    metadata = manifest["metadata"]
    return kind_of(manifest).path(metadata["namespace"], metadata["name"])


@asynccontextmanager
async def connect() -> AsyncIterator[KubeClient]:
    """Connect as the pod's service account, or as the current context of a kubeconfig."""
    configuration = client.Configuration()
    # With trust_env, each request reads the proxy variables in its own thread; a kubeconfig can name a proxy itself.
    configuration.client_session_kwargs = {"trust_env": False}
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        await config.load_kube_config(client_configuration=configuration)
    async with client.ApiClient(configuration) as api:
        yield KubeClient(api)
