"""Objects on a real API server: mutated, awaited until the operator responds, and reverted."""

import http.client
import json
import ssl
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from api.conftest import Operator
from cluster.control_plane import Cluster
from finetune_api.meta import API_VERSION, GROUP, VERSION
from fuzz.schemas import explain_status
from waiting import wait_for

Manifest = dict[str, Any]
PLURALS = {"FineTuneJob": "finetunejobs", "ModelServer": "modelservers"}
_CHILDREN = (
    "/apis/apps/v1/namespaces/{}/deployments",
    "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
)
"""Children that show a server's spec. The autoscaler is left out: it stays after a mutation that created it."""
_UNUSED_ADDRESS = "127.0.0.9"
"""An address where nothing listens."""
_VOLATILE = ("Time", "observedGeneration")
"""Suffixes of field names that change with every write."""
_CONFLICT = ": 409: "
_MAX_CONFLICTS = 8
"""Conflicts of one object in one round: each status that the Deployment controller writes can cause one."""


@dataclass
class Api:
    """A persistent connection to the API server as its administrator."""

    cluster: Cluster
    _connection: http.client.HTTPSConnection | None = None

    def __enter__(self) -> Self:
        context = ssl._create_unverified_context()  # noqa: S323 - its certificate is its own
        host, _, port = self.cluster.server.removeprefix("https://").partition(":")
        self._connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=30)
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection:
            self._connection.close()

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, Manifest]:
        """Send a request; return the status code and the body of the answer."""
        assert self._connection is not None
        token = (self.cluster.directory / "pki" / "admin.token").read_text()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": kind, "Accept": "application/json"}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = self._connection.getresponse()
        return response.status, json.loads(response.read() or "{}")


@dataclass
class Stage:
    """A namespace with objects that the tests mutate."""

    api: Api
    operator: Operator
    namespace: str
    problems: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    """Label of the last mutation of each object, by its name; the operator's log lines are attributed to it."""
    simulates_pods: bool = False
    """Whether to set pods to Running: otherwise a Deployment never completes a rollout."""
    _log_read: int = 0

    def __post_init__(self) -> None:
        self.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        self._log_read = self.operator.log.stat().st_size

    def create(self, kind: str, name: str, spec: Any) -> tuple[int, Manifest]:
        """Create an object with strict validation like kubectl: unknown fields are refused."""
        body = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
        return self.api.call("POST", f"{self.path(kind)}?fieldValidation=Strict", body)

    def replace(self, manifest: Manifest, part: str, value: Any, label: str) -> tuple[int, Manifest]:
        """Replace an object's spec, status or metadata; retries conflicts."""
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        self.labels[name] = label
        path = f"{self.path(kind)}/{name}"
        while True:
            current = self.api.call("GET", path)[1]
            body = current | {part: value}
            body["metadata"] = body["metadata"] | {"resourceVersion": current["metadata"]["resourceVersion"]}
            target = f"{path}/status" if part == "status" else path
            code, answer = self.api.call("PUT", f"{target}?fieldValidation=Strict", body)
            if code != 409:
                return code, answer

    def path(self, kind: str) -> str:
        """Return the path of the objects of a kind."""
        return f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{PLURALS[kind]}"

    def list(self, kind: str) -> dict[str, Manifest]:
        """Return the objects of a kind by name."""
        items = self.api.call("GET", self.path(kind))[1]["items"]
        return {item["metadata"]["name"]: item | {"kind": kind} for item in items}

    def await_observation(self, kind: str, names: Iterable[str]) -> None:
        """Wait until the status of each object is for its current generation; record a problem otherwise."""
        waiting = set(names)

        def are_observed() -> bool:
            objects = self.list(kind)
            waiting.difference_update([name for name in waiting if name in objects and _is_observed(objects[name])])
            return not waiting

        try:
            wait_for(are_observed, "", 60)
        except AssertionError:
            self.problems += [
                f"{self.labels.get(name, name)}: the operator does not update its status" for name in sorted(waiting)
            ]

    def check_statuses(self, kind: str) -> None:
        """Wait until every status is valid: the API server admits some invalid values, which the operator corrects."""
        faults: dict[str, str] = {}

        def are_valid() -> bool:
            faults.clear()
            faults.update(
                {name: explain_status(kind, manifest.get("status", {})) for name, manifest in self.list(kind).items()}
            )
            return not any(faults.values())

        try:
            wait_for(are_valid, "", 30)
        except AssertionError:
            self.problems += [
                f"{self.labels.get(name, name)}: its status: {fault}" for name, fault in faults.items() if fault
            ]

    def await_states(self, kind: str, states: dict[str, Manifest]) -> None:
        """Wait until every object has its former state again; record a problem otherwise."""
        pending = dict(states)
        now: dict[str, Manifest] = {}

        def are_restored() -> bool:
            now.update(self.states(kind, pending))
            for name in [name for name, state in pending.items() if now[name] == state]:
                del pending[name]
            return not pending

        try:
            wait_for(are_restored, "", 60)
        except AssertionError:
            self.problems += [
                f"{self.labels.get(name, name)}: after the revert: was {_difference(state, now[name])}"
                for name, state in pending.items()
            ]

    def await_rest(self, kind: str, names: Iterable[str]) -> dict[str, Manifest]:
        """Wait until the objects stop changing; return their states."""
        snapshots: list[dict[str, Manifest]] = [{}]

        def is_at_rest() -> bool:
            snapshots.append(self.states(kind, names))
            return snapshots[-1] == snapshots[-2]

        wait_for(is_at_rest, lambda: f"objects in {self.namespace} to stop changing", 60)
        return snapshots[-1]

    def states(self, kind: str, names: Iterable[str]) -> dict[str, Manifest]:
        """Return the state that the operator sets: the status without times, and the specs of a server's children."""
        if self.simulates_pods:
            self._set_pods_running()
        objects = self.list(kind)
        children: dict[str, list[Any]] = {name: [] for name in names}
        for path in _CHILDREN if kind == "ModelServer" else ():
            for child in self.api.call("GET", path.format(self.namespace))[1]["items"]:
                children.get(child["metadata"]["name"], []).append(child["spec"])
        return {
            name: {"status": _without_times(objects.get(name, {}).get("status")), "children": children[name]}
            for name in children
        }

    def _set_pods_running(self) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        ready = {"phase": "Running", "podIP": _UNUSED_ADDRESS, "conditions": [{"type": "Ready", "status": "True"}]}
        for pod in self.api.call("GET", path)[1]["items"]:
            if pod["status"].get("phase") != "Running":
                target = f"{path}/{pod['metadata']['name']}/status"
                self.api.call("PATCH", target, {"status": ready}, "application/merge-patch+json")

    def read_log(self) -> None:
        """Record a problem for each new warning or error in the operator's log."""
        with self.operator.log.open("rb") as log:
            log.seek(self._log_read)
            text, _, rest = log.read().rpartition(b"\n")
            self._log_read = log.tell() - len(rest)
        lines = [json.loads(line) for line in text.decode().split("\n") if line]
        conflicts: Counter[str] = Counter()
        for line in lines:
            if line["level"] not in ("warning", "error", "critical") or line.get("namespace") != self.namespace:
                continue
            name = line.get("name", "")
            # A few conflicts are expected: the operator retries them.
            conflicts[name] += _CONFLICT in line["message"]
            if _CONFLICT not in line["message"] or conflicts[name] > _MAX_CONFLICTS:
                entry = f"{line['message']}\n{line.get('exception', '')}"
                self.problems.append(f"{self.labels.get(name, name)}: the operator: {entry}")

    def check(self) -> None:
        """Fail with all problems since the last call."""
        self.read_log()
        problems, self.problems = self.problems, []
        assert not problems, "\n".join(["repeat one with the text before its second colon: --only '…'", *problems])

    def delete(self) -> None:
        """Delete the namespace."""
        self.api.call("DELETE", f"/api/v1/namespaces/{self.namespace}")


def is_named(message: str, names: Iterable[str]) -> bool:
    """Return whether a message names one of the fields."""
    return any(name in message for name in names)


def _is_observed(manifest: Manifest) -> bool:
    status = manifest.get("status", {})
    return bool(status.get("conditions")) and status.get("observedGeneration") == manifest["metadata"]["generation"]


def _without_times(value: Any) -> Any:
    match value:
        case dict():
            return {key: _without_times(part) for key, part in value.items() if not key.endswith(_VOLATILE)}
        case list():
            return [_without_times(part) for part in value]
    return value


def _difference(before: Any, now: Any, path: str = "") -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        differences = [_difference(before.get(key), now.get(key), f"{path}.{key}") for key in keys]
        return "; ".join(filter(None, differences))
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return "; ".join(filter(None, (_difference(a, b, f"{path}[]") for a, b in zip(before, now, strict=True))))
    return "" if before == now else f"{path} {json.dumps(before)[:200]} and is {json.dumps(now)[:200]}"
