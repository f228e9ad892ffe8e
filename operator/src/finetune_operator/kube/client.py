"""The only file that talks to the Kubernetes API: lists, creations, updates and status writes, events, Leases.

Every write holds for what was seen, and for nothing else: a creation for a name that is free, an update for one
version of an object. Whoever writes late, by a picture of the cluster that is old, changes nothing.
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
"""After which the API server ends a watch; the client does a little later, where that is not told."""
_PAGE = 500
_JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
_METADATA_ONLY = "as={};g=meta.k8s.io;v=v1,application/json"


class ApiError(Exception):
    """The API server refused a request, or could not be reached (code 0)."""

    def __init__(self, code: int, message: str, reason: str = "") -> None:
        """Keep the HTTP status, the server's own words, and its reason: one word that tells apart what has one code."""
        super().__init__(f"{code}: {message}" if code else message)
        self.code = code
        self.message = message
        self.reason = reason


class Cluster:
    """A connection to the API server."""

    def __init__(self, api: client.ApiClient, check: Callable[[], None] = lambda: None) -> None:
        """Wrap a client of the official library; `check` raises where nothing may be written any more."""
        self._api, self._check = api, check

    def fenced(self, check: Callable[[], None]) -> "Cluster":
        """Return the same connection, with a check before each write."""
        return Cluster(self._api, check)

    async def list_all(self, kind: Kind, *, metadata_only: bool = False) -> tuple[list[Manifest], int]:
        """Return every object of a kind, and the list's resource version."""
        items: list[Manifest] = []
        query = {"limit": str(_PAGE)} | _selection(kind)
        accept = "PartialObjectMetadataList" if metadata_only else None
        while True:
            page = await self._request("GET", kind.path(), query, metadata_as=accept)
            # An empty list of metadata alone has no items at all.
            items += page["items"] or []
            token = page["metadata"].get("continue")
            if not token:
                break
            query["continue"] = token
        for item in items:
            item |= {"apiVersion": kind.api_version, "kind": kind.name}
        return items, int(page["metadata"]["resourceVersion"])

    async def find(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """Return an object whether it has the label that its kind is watched by or not; None where there is none."""
        query = {"fieldSelector": f"metadata.name={name}"}
        page = await self._request("GET", kind.path(namespace), query)
        for item in page["items"]:
            return dict(item) | {"apiVersion": kind.api_version, "kind": kind.name}
        return None

    async def pods_of(self, namespace: str, job: str) -> list[Manifest]:
        """Return the pods of a Job as they are now."""
        page = await self._request("GET", POD.path(namespace), {"labelSelector": f"{_JOB_NAME_LABEL}={job}"})
        return [dict(item) | {"apiVersion": POD.api_version, "kind": POD.name} for item in page["items"]]

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object and return it as it is now.

        Raises:
            ApiError: with the reason `AlreadyExists` where somebody has the name.
        """
        return await self._write("POST", kind_of(manifest).path(manifest["metadata"]["namespace"]), manifest)

    async def update(self, manifest: Manifest) -> Manifest:
        """Replace an object; `metadata.resourceVersion` says which version of it was seen.

        Raises:
            ApiError: 409 where it has changed since.
        """
        return await self._write("PUT", _path_of(manifest), manifest)

    async def update_status(self, manifest: Manifest) -> Manifest:
        """Replace the status of an object; `metadata.resourceVersion` says which version of it was seen.

        Raises:
            ApiError: 409 where it has changed since.
        """
        return await self._write("PUT", f"{_path_of(manifest)}/status", manifest)

    async def merge(self, kind: Kind, namespace: str, name: str, body: Manifest) -> Manifest:
        """Change a part of an object; return it as it is now."""
        path = kind.path(namespace, name)
        query = {"fieldManager": FIELD_MANAGER}
        changed = await self._request("PATCH", path, query, body, "application/merge-patch+json")
        WRITES.labels(kind.name, "patch").inc()
        return changed

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str, version: str) -> Manifest:
        """Delete an object in this very version; return it as it is on its way out.

        What it owns goes first: the object is there until the last of its pods has ended.
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
        """Tell an event once: its name is made from what it says."""
        try:
            path = f"/apis/events.k8s.io/v1/namespaces/{event['metadata']['namespace']}/events"
            await self._request("POST", path, {"fieldManager": FIELD_MANAGER}, event)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        WRITES.labels("Event", "post").inc()

    async def get_lease(self, namespace: str, name: str) -> Manifest | None:
        """Return a Lease, or None."""
        try:
            return _as_lease(await self._request("GET", LEASE.path(namespace, name), {}))
        except ApiError as error:
            if error.code != 404:
                raise
        return None

    async def watch_lease(self, lease: Manifest) -> AsyncGenerator[Manifest | None]:
        """Yield what becomes of a Lease after the version that was read, None when it is deleted.

        Ends where the API server ends the watch, or no longer knows what came after that version.
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
                async for event, manifest in events:
                    yield None if event == "DELETED" else _as_lease(manifest)
        except ApiError as error:
            if error.code != 410:
                raise

    async def write_lease(self, lease: Manifest) -> Manifest | None:
        """Create a Lease, or replace the version that it names; return None where another was quicker."""
        metadata = lease["metadata"]
        is_known = "resourceVersion" in metadata
        method, name = ("PUT", metadata["name"]) if is_known else ("POST", None)
        try:
            return await self._request(method, LEASE.path(metadata["namespace"], name), {}, lease)
        except ApiError as error:
            if error.code != 409 and not (is_known and error.code == 404):
                raise
        return None

    async def _write(self, method: str, path: str, manifest: Manifest) -> Manifest:
        """Send an object; of the answer only the metadata is asked for, since the rest is what was sent."""
        query = {"fieldManager": FIELD_MANAGER}
        answer = await self._request(method, path, query, manifest, metadata_as="PartialObjectMetadata")
        WRITES.labels(manifest["kind"], method.lower()).inc()
        return manifest | {"metadata": answer["metadata"]}

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
        with _telling_errors():
            response = await self._send(method, path, query, headers, body, _TIMEOUT)
            return dict(json.loads(await response.read()))

    async def _watch(self, path: str, query: dict[str, str]) -> AsyncGenerator[tuple[str, Manifest]]:
        """Yield the events of a watch until the API server ends it."""
        timeout = aiohttp.ClientTimeout(total=_WATCH_SECONDS + _TIMEOUT)
        with _telling_errors():
            response = (await self._send("GET", path, query, {"Accept": "application/json"}, None, timeout)).response
            try:
                async for line in response.content:
                    told = json.loads(line)
                    event, manifest = str(told["type"]), dict(told["object"])
                    if event == "ERROR":
                        raise _refusal(int(manifest.get("code") or 0), json.dumps(manifest))
                    yield event, manifest
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
        """Return an answer that is no refusal."""
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = f"{self._api.configuration.host}{path}?{urlencode(query)}"
        if method != "GET":
            self._check()
        response = await self._api.call_api(method, url, header_params=headers, body=body, _request_timeout=timeout)
        if not 200 <= response.status < 300:
            raise _refusal(response.status, (await response.read()).decode(errors="replace"))
        return response


@contextmanager
def _telling_errors() -> Iterator[None]:
    """Say as this file's error what the libraries raise where there is no answer, or one that means nothing."""
    try:
        yield
    except ApiException as error:
        raise _refusal(int(error.status or 0), str(error.body or error.reason)) from error
    except (OSError, TimeoutError, aiohttp.ClientError) as error:
        raise ApiError(0, f"the API server cannot be reached: {error!r}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ApiError(0, f"the API server's answer is not what was asked for: {error!r}") from error


def _refusal(code: int, text: str) -> ApiError:
    """Return the error for an answer, which is a `Status` unless something stands between."""
    try:
        status = json.loads(text)
        return ApiError(code, str(status["message"]), str(status.get("reason", "")))
    except (ValueError, TypeError, KeyError, AttributeError):
        return ApiError(code, text[:1024])


def _as_lease(manifest: Manifest) -> Manifest:
    """Return what the API server says is a Lease, if it has what the protocol counts on."""
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict) or not {"namespace", "name", "resourceVersion"} <= metadata.keys():
        raise ApiError(0, "the API server's answer is no Lease")
    return manifest


def _selection(kind: Kind) -> dict[str, str]:
    return {"labelSelector": kind.selector} if kind.selector else {}


def _path_of(manifest: Manifest) -> str:
    metadata = manifest["metadata"]
    return kind_of(manifest).path(metadata["namespace"], metadata["name"])


@asynccontextmanager
async def connect() -> AsyncIterator[Cluster]:
    """Connect as the pod's service account, or as the current context of a kubeconfig."""
    configuration = client.Configuration()
    # Else each request looks for a proxy in the environment, on a thread of its own; a kubeconfig names one itself.
    configuration.client_session_kwargs = {"trust_env": False}
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        await config.load_kube_config(client_configuration=configuration)
    async with client.ApiClient(configuration) as api:
        yield Cluster(api)
