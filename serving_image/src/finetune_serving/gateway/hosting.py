"""The versions that a server should host and does host, and the choice of a version for a request. No I/O, no clock."""

import hashlib
from dataclasses import dataclass, field

from finetune_api.access import RequestLimits
from finetune_api.contract.routes import LoadedModel, LoadedReport, Route, Routes
from finetune_api.modelserver import NO_PARSER, EngineStatus

_FIRST_RETRY_SECONDS = 1.0
_MAX_RETRY_SECONDS = 60.0


@dataclass
class Version:
    """One route, its state and its counters."""

    route: Route
    is_loaded: bool = False
    refusal: str = ""
    """Why the last attempt to load it failed."""
    failures: int = 0
    """Failed attempts to load it."""
    retry_at: float = 0.0
    """Time of the next attempt, in seconds of the monotonic clock."""
    in_flight: int = 0
    """Requests in flight. Until there are none the version is not unloaded."""
    requests: int = 0
    """Requests answered since the pod started."""
    errors: int = 0
    """Number of these requests with a status of 500 or above."""
    seconds: float = 0.0
    """Total duration of these requests."""

    def mark_failed(self, message: str, now: float) -> None:
        """Record a failure to load; the delay until the next attempt doubles each time, up to a maximum."""
        self.refusal = message[:1024]
        self.failures += 1
        self.retry_at = now + min(_FIRST_RETRY_SECONDS * 2.0 ** (self.failures - 1), _MAX_RETRY_SECONDS)

    def mark_loaded(self) -> None:
        """Record that vLLM has loaded the version: it can answer requests."""
        self.is_loaded, self.refusal = True, ""

    def count_request(self, status: int, seconds: float) -> None:
        """Count a finished request."""
        self.requests += 1
        self.errors += status >= 500
        self.seconds += seconds


@dataclass
class Hosting:
    """The versions that one pod of a server hosts."""

    has_routes: bool = False
    """Whether a routes file has been read."""
    desired: list[Version] = field(default_factory=list)
    """Versions with a route, in the order of the routes."""
    draining: list[Version] = field(default_factory=list)
    """Versions without a route that still have requests in flight."""
    max_model_len: int = 0
    """Maximum tokens of a request; 0 until the model is loaded."""
    limits: RequestLimits = field(default_factory=RequestLimits)
    """Limits of a single request."""
    chat_template: str | None = None
    """Digest of `model.chatTemplate`; None if vLLM renders with the model's own chat template."""
    engine: EngineStatus | None = None
    """The parsers that vLLM uses."""

    @property
    def parses_tool_calls(self) -> bool:
        """Whether vLLM reads tool calls in answers."""
        return self.engine is not None and self.engine.tool_call_parser != NO_PARSER

    def set_routes(self, routes: Routes) -> None:
        """Replace the routes; versions that are already loaded stay loaded."""
        self.has_routes, self.limits = True, routes.limits
        known = {_identity(version.route): version for version in (*self.draining, *self.desired)}
        self.desired = [_update_version(known.pop(_identity(route), None), route) for route in routes.routes]
        self.draining = [version for version in known.values() if version.is_loaded]

    @property
    def names(self) -> list[str]:
        """The public model names that can be requested, sorted."""
        return sorted(
            {version.route.model_name for version in self.desired if version.is_loaded and not version.route.is_hidden}
        )

    def has_name(self, name: str) -> bool:
        """Return whether the routes have a public model name, or a version as `name@job`, loaded or not."""
        return any(
            name == version.route.version_name or (name == version.route.model_name and not version.route.is_hidden)
            for version in self.desired
        )

    def find_version(self, name: str, percentile: float) -> Version | None:
        """Return the version that answers a request; None if none is loaded.

        If the version at the percentile is not loaded, the loaded one with the largest weight answers.

        Args:
            name: a public model name, or one version of it as `name@job`.
            percentile: from 0 up to 100; the routes' weights divide this range among the versions of the name.
        """
        versions = [
            version for version in self.desired if version.route.model_name == name and not version.route.is_hidden
        ]
        if not versions:
            versions = [version for version in self.desired if version.route.version_name == name]
        end = 0
        for version in versions:
            end += version.route.weight
            if percentile < end and version.is_loaded:
                return version
            if percentile < end:
                break
        loaded = [version for version in versions if version.is_loaded]
        return max(loaded, key=lambda version: version.route.weight, default=None)

    def next_to_load(self, now: float) -> Version | None:
        """Return the version to load now, the one with the fewest failures first; None if none is due."""
        due = [version for version in self.desired if not version.is_loaded and version.retry_at <= now]
        return min(due, key=lambda version: version.failures, default=None)

    def to_unload(self, loaded_names: set[str]) -> list[str]:
        """Return those of vLLM's adapter names that no version needs, and forget versions that have drained."""
        self.draining = [version for version in self.draining if version.in_flight]
        needed = {version.route.served_name for version in (*self.desired, *self.draining)}
        return sorted(loaded_names - needed)

    def is_settled(self) -> bool:
        """Return whether every version was loaded or refused at least once. A refused one keeps no pod unready."""
        return self.has_routes and all(version.is_loaded or version.refusal for version in self.desired)

    def build_report(self) -> LoadedReport:
        """Return the pod's report about its routes, its chat template and its parsers."""
        models = [_build_loaded_model(version) for version in self.desired]
        return LoadedReport(models=models, chat_template=self.chat_template, engine=self.engine)


def compute_percentile(name: str, client: str) -> float:
    """Return a client's percentile among all clients of a name, from 0 up to 100. It depends only on the arguments.

    Args:
        name: the public model name; the same client has another percentile for another name.
        client: identifies the client: the request's `user`, or the name of its API key.
    """
    digest = hashlib.sha256(f"{name}\0{client}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64 * 100


def _identity(route: Route) -> Route:
    """Return the parts of a route that identify a version: all but its weight and whether it is hidden."""
    return route.model_copy(update={"weight": 0, "is_hidden": False})


def _update_version(known: Version | None, route: Route) -> Version:
    """Return the version of a route. A known version stays the same object, which counts its requests in flight."""
    version = known or Version(route)
    version.route = route
    return version


def _build_loaded_model(version: Version) -> LoadedModel:
    state = "Loaded" if version.is_loaded else "Refused" if version.refusal else "Loading"
    return LoadedModel.model_validate(
        {
            "modelName": version.route.model_name,
            "job": version.route.job,
            "digest": version.route.digest,
            "state": state,
            "weight": version.route.weight,
            "message": version.refusal,
            "requests": version.requests,
            "errors": version.errors,
            "seconds": round(version.seconds, 3),
        }
    )
