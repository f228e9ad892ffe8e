"""Which versions a server should have, has, and answers with. Pure: loading, the clock and chance are elsewhere."""

import hashlib
from dataclasses import dataclass, field

from finetune_api.access import RequestLimits
from finetune_api.contract.routes import LoadedModel, LoadedReport, Route, Routes

_FIRST_DELAY = 1.0
_LONGEST_DELAY = 60.0


@dataclass
class Version:
    """One route and what became of it."""

    route: Route
    is_loaded: bool = False
    refusal: str = ""
    failures: int = 0
    due: float = 0.0
    """When to try next, in seconds of the monotonic clock."""
    in_flight: int = 0
    """Requests that it answers just now: until they are done it is not dropped."""
    requests: int = 0
    """Requests that it has answered, since the pod began."""
    errors: int = 0
    """How many of them with a status of 500 and above."""
    seconds: float = 0.0
    """How long they took, together."""

    def fail(self, message: str, now: float) -> None:
        """Note a failure to load; the next try comes later each time."""
        self.refusal = message[:1024]
        self.failures += 1
        self.due = now + min(_FIRST_DELAY * 2.0 ** (self.failures - 1), _LONGEST_DELAY)

    def loaded(self) -> None:
        """Let it answer."""
        self.is_loaded, self.refusal = True, ""

    def answered(self, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests += 1
        self.errors += status >= 500
        self.seconds += seconds


@dataclass
class Hosting:
    """The state of one server's pod."""

    has_routes: bool = False
    wanted: list[Version] = field(default_factory=list)
    """In the order of the routes."""
    leaving: list[Version] = field(default_factory=list)
    """Without a route, but some of their requests are not done yet."""
    max_model_len: int = 0
    """Tokens that the model takes; 0 until it is loaded."""
    limits: RequestLimits = field(default_factory=RequestLimits)
    """How much one request may ask for."""

    def want(self, routes: Routes) -> None:
        """Take over a new routes file; what is loaded already stays as it is."""
        self.has_routes, self.limits = True, routes.limits
        known = {_content(version.route): version for version in (*self.leaving, *self.wanted)}
        self.wanted = [_renew(known.pop(_content(route), None), route) for route in routes.routes]
        self.leaving = [version for version in known.values() if version.is_loaded]

    @property
    def names(self) -> list[str]:
        """The public model names that answer."""
        return sorted({one.route.model_name for one in self.wanted if one.is_loaded and not one.route.is_hidden})

    def knows(self, name: str) -> bool:
        """Tell whether the routes have a public name, or a version as `name@job`, loaded or not."""
        return any(
            name == one.route.version_name or (name == one.route.model_name and not one.route.is_hidden)
            for one in self.wanted
        )

    def find(self, name: str, position: float) -> Version | None:
        """Return the version that answers a request; None where none is loaded.

        A position whose version is not loaded yet is answered by the one with the largest share that is.

        Args:
            name: a public name, or one version of it as `name@job`.
            position: where the request stands, from 0 up to 100; the routes' weights divide that among the versions.
        """
        versions = [one for one in self.wanted if one.route.model_name == name and not one.route.is_hidden]
        if not versions:
            versions = [version for version in self.wanted if version.route.version_name == name]
        end = 0
        for version in versions:
            end += version.route.weight
            if position < end and version.is_loaded:
                return version
            if position < end:
                break
        loaded = [version for version in versions if version.is_loaded]
        return max(loaded, key=lambda version: version.route.weight, default=None)

    def next_to_load(self, now: float) -> Version | None:
        """Return the version to load now; one at a time."""
        due = [version for version in self.wanted if not version.is_loaded and version.due <= now]
        return min(due, key=lambda version: version.failures, default=None)

    def to_drop(self, known: set[str]) -> list[str]:
        """Return which of vLLM's names nothing answers with any more."""
        self.leaving = [version for version in self.leaving if version.in_flight]
        needed = {version.route.served_name for version in (*self.wanted, *self.leaving)}
        return sorted(known - needed)

    def is_settled(self) -> bool:
        """Tell whether every route was tried: a refused adapter never takes a pod out."""
        return self.has_routes and all(one.is_loaded or one.refusal for one in self.wanted)

    def report(self) -> LoadedReport:
        """Return what the pod says of its routes."""
        return LoadedReport(models=[_describe(version) for version in self.wanted])


def position_of(name: str, key: str) -> float:
    """Return where the requests of a key stand in the division of a name, from 0 up to 100; always the same.

    Args:
        name: the public model name; each divides its keys in another way.
        key: who asks.
    """
    digest = hashlib.sha256(f"{name}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64 * 100


def _content(route: Route) -> Route:
    """Return what makes a version: all of its route but its share, and whether it is proven."""
    return route.model_copy(update={"weight": 0, "is_hidden": False})


def _renew(known: Version | None, route: Route) -> Version:
    """Return the version of a route; a known one stays the same object, since its requests in flight count on it."""
    version = known or Version(route)
    version.route = route
    return version


def _describe(version: Version) -> LoadedModel:
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
