"""Objects on a real API server: mutated, looked at until the operator has said something, and turned back."""

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
"""What a server's spec is seen in. Its autoscaler stays once it was made, and is not looked at."""
_NOBODY = "127.0.0.9"
"""An address where nobody answers."""
_VOLATILE = ("Time", "observedGeneration")
"""How the names of what differs from one time to the next end."""
_CONFLICT = ": 409: "
_MOST_CONFLICTS = 3


@dataclass
class Api:
    """One kept connection to the API server, as its administrator."""

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
        """Send a request; return the answer's status and what it says."""
        assert self._connection is not None
        token = (self.cluster.directory / "pki" / "admin.token").read_text()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": kind, "Accept": "application/json"}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = self._connection.getresponse()
        return response.status, json.loads(response.read() or "{}")


@dataclass
class Stage:
    """A namespace with objects in it that are mutated."""

    api: Api
    operator: Operator
    namespace: str
    problems: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    """By an object's name what was done to it last: what the operator logs about it is put down to that."""
    plays_pods: bool = False
    """Whether it says of pods that they run: without that a Deployment never finishes what it began."""
    _log_read: int = 0

    def __post_init__(self) -> None:
        self.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        self._log_read = self.operator.log.stat().st_size

    def create(self, kind: str, name: str, spec: Any) -> tuple[int, Manifest]:
        """Create an object as kubectl does: unknown fields are refused."""
        body = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
        return self.api.call("POST", f"{self.path(kind)}?fieldValidation=Strict", body)

    def replace(self, manifest: Manifest, part: str, value: Any, label: str) -> tuple[int, Manifest]:
        """Write another spec, status or metadata over an object, whatever version it has by now."""
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        self.labels[name] = label
        path = f"{self.path(kind)}/{name}"
        while True:
            known = self.api.call("GET", path)[1]
            body = known | {part: value}
            body["metadata"] = body["metadata"] | {"resourceVersion": known["metadata"]["resourceVersion"]}
            target = f"{path}/status" if part == "status" else path
            code, answer = self.api.call("PUT", f"{target}?fieldValidation=Strict", body)
            if code != 409:
                return code, answer

    def path(self, kind: str) -> str:
        """Return where the objects of a kind are."""
        return f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{PLURALS[kind]}"

    def list(self, kind: str) -> dict[str, Manifest]:
        """Return the objects of a kind by name."""
        items = self.api.call("GET", self.path(kind))[1]["items"]
        return {one["metadata"]["name"]: one | {"kind": kind} for one in items}

    def await_answers(self, kind: str, names: Iterable[str]) -> None:
        """Wait until the operator has said something about each object as it is now; silence is a problem."""
        waiting = set(names)

        def has_answered() -> bool:
            known = self.list(kind)
            waiting.difference_update([name for name in waiting if name in known and _is_answered(known[name])])
            return not waiting

        try:
            wait_for(has_answered, "", 60)
        except AssertionError:
            self.problems += [
                f"{self.labels.get(name, name)}: the operator says nothing about it" for name in sorted(waiting)
            ]

    def check_statuses(self, kind: str) -> None:
        """Wait until every status is valid; the API server takes a list for a time, which the operator puts right."""
        faults: dict[str, str] = {}

        def are_valid() -> bool:
            faults.clear()
            faults.update({name: explain_status(kind, one.get("status", {})) for name, one in self.list(kind).items()})
            return not any(faults.values())

        try:
            wait_for(are_valid, "", 30)
        except AssertionError:
            self.problems += [
                f"{self.labels.get(name, name)}: its status: {one}" for name, one in faults.items() if one
            ]

    def await_states(self, kind: str, states: dict[str, Manifest]) -> None:
        """Wait until every object is as it was before; one that does not come back is a problem."""
        left = dict(states)
        now: dict[str, Manifest] = {}

        def are_back() -> bool:
            now.update(self.states(kind, left))
            for name in [name for name, state in left.items() if now[name] == state]:
                del left[name]
            return not left

        try:
            wait_for(are_back, "", 60)
        except AssertionError:
            self.problems += [
                f"{self.labels.get(name, name)}: turned back, but was {_difference(state, now[name])}"
                for name, state in left.items()
            ]

    def await_rest(self, kind: str, names: Iterable[str]) -> dict[str, Manifest]:
        """Wait until the objects do not change any more; return what they are then."""
        seen: list[dict[str, Manifest]] = [{}]

        def is_at_rest() -> bool:
            seen.append(self.states(kind, names))
            return seen[-1] == seen[-2]

        wait_for(is_at_rest, lambda: f"rest in {self.namespace}", 60)
        return seen[-1]

    def states(self, kind: str, names: Iterable[str]) -> dict[str, Manifest]:
        """Return what the operator makes of objects: their status without times, and a server's children."""
        if self.plays_pods:
            self._play_pods()
        known = self.list(kind)
        children: dict[str, list[Any]] = {name: [] for name in names}
        for path in _CHILDREN if kind == "ModelServer" else ():
            for child in self.api.call("GET", path.format(self.namespace))[1]["items"]:
                children.get(child["metadata"]["name"], []).append(child["spec"])
        return {
            name: {"status": _without_times(known.get(name, {}).get("status")), "children": children[name]}
            for name in children
        }

    def _play_pods(self) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        ready = {"phase": "Running", "podIP": _NOBODY, "conditions": [{"type": "Ready", "status": "True"}]}
        for pod in self.api.call("GET", path)[1]["items"]:
            if pod["status"].get("phase") != "Running":
                target = f"{path}/{pod['metadata']['name']}/status"
                self.api.call("PATCH", target, {"status": ready}, "application/merge-patch+json")

    def read_log(self) -> None:
        """Make a problem of whatever the operator complained about meanwhile."""
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
            # A write that somebody else's came before is tried again, once or twice.
            conflicts[name] += _CONFLICT in line["message"]
            if _CONFLICT not in line["message"] or conflicts[name] > _MOST_CONFLICTS:
                complaint = f"{line['message']}\n{line.get('exception', '')}"
                self.problems.append(f"{self.labels.get(name, name)}: the operator: {complaint}")

    def check(self) -> None:
        """Fail with every problem that was found since the last time."""
        self.read_log()
        problems, self.problems = self.problems, []
        assert not problems, "\n".join(["repeat one by what stands before its second colon: --only '…'", *problems])

    def end(self) -> None:
        """Delete the namespace."""
        self.api.call("DELETE", f"/api/v1/namespaces/{self.namespace}")


def is_named(message: str, names: Iterable[str]) -> bool:
    """Tell whether a refusal names one of the fields."""
    return any(name in message for name in names)


def _is_answered(manifest: Manifest) -> bool:
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
        found = [_difference(before.get(key), now.get(key), f"{path}.{key}") for key in keys]
        return "; ".join(filter(None, found))
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return "; ".join(filter(None, (_difference(a, b, f"{path}[]") for a, b in zip(before, now, strict=True))))
    return "" if before == now else f"{path} {json.dumps(before)[:200]} and is {json.dumps(now)[:200]}"
