"""Which versions a server should have, has, and answers for. Pure: loading and the clock are elsewhere."""

from dataclasses import dataclass, field

from finetune_api.routes import LoadedModel, LoadedReport, Route, Routes

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

    def fail(self, message: str, now: float) -> None:
        """Note a failure; the next try comes later each time."""
        self.refusal = message[:1024]
        self.failures += 1
        self.due = now + min(_FIRST_DELAY * 2.0 ** (self.failures - 1), _LONGEST_DELAY)


@dataclass
class Hosting:
    """The state of one server's pod."""

    has_routes: bool = False
    wanted: dict[str, Version] = field(default_factory=dict)
    """By public model name."""
    answering: dict[str, Version] = field(default_factory=dict)
    """By public model name: the version that answers; the old one until the new one is loaded."""

    def want(self, routes: Routes) -> None:
        """Take over a new routes file; what is loaded already stays as it is."""
        self.has_routes = True
        before = self.wanted
        self.wanted = {}
        for route in routes.routes:
            known = before.get(route.model_name)
            if known is None or known.route != route:
                answering = self.answering.get(route.model_name)
                known = answering if answering and answering.route == route else Version(route)
            self.wanted[route.model_name] = known

    def next_to_load(self, now: float) -> Version | None:
        """Return the version to load now; one at a time."""
        due = [version for version in self.wanted.values() if not version.is_loaded and version.due <= now]
        return min(due, key=lambda version: version.failures, default=None)

    def loaded(self, version: Version) -> None:
        """Let a version answer."""
        version.is_loaded, version.refusal = True, ""
        self.answering[version.route.model_name] = version

    def to_drop(self, known: set[str]) -> list[str]:
        """Return which of vLLM's names nothing answers with any more, and forget models without a route."""
        for name in self.answering.keys() - self.wanted.keys():
            del self.answering[name]
        needed = {version.route.served_name for version in self.answering.values()}
        return sorted(known - needed)

    def is_settled(self) -> bool:
        """Tell whether every route was tried: a refused adapter never takes a pod out."""
        return self.has_routes and all(one.is_loaded or one.refusal for one in self.wanted.values())

    def report(self) -> LoadedReport:
        """Return what the pod says of its routes."""
        return LoadedReport(models=[_describe(version) for version in self.wanted.values()])


def _describe(version: Version) -> LoadedModel:
    state = "Loaded" if version.is_loaded else "Refused" if version.refusal else "Loading"
    return LoadedModel.model_validate(
        {
            "modelName": version.route.model_name,
            "digest": version.route.digest,
            "state": state,
            "message": version.refusal,
        }
    )
