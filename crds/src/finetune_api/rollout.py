"""How a new version takes a model name over: at once, or as a canary whose share grows while it does well."""

from typing import Annotated

from pydantic import Field

from finetune_api.model import ApiModel, Rule, Time

JobName = Annotated[str, Field(max_length=63)]


class CanaryStep(ApiModel):
    """One share and how long it is held."""

    weight: Annotated[int, Field(ge=1, le=99)]
    """Share of the requests in percent."""
    seconds: Annotated[int, Field(ge=1, le=604_800)] = 300
    """How long the share is held, from when all pods have loaded the version."""


class Canary(ApiModel):
    """A share that grows step by step, and goes back to nothing when the new version does worse."""

    steps: Annotated[list[CanaryStep], Field(min_length=1, max_length=16)] = [
        CanaryStep(weight=10),
        CanaryStep(weight=50),
    ]
    """The shares; after the last one the new version gets all requests."""
    max_error_rate_increase: Annotated[float, Field(ge=0, le=1)] = 0.05
    """By how much the share of its requests that fail (500 and above) may be above that of the stable version."""
    max_latency_ratio: Annotated[float, Field(ge=1, le=100)] = 1.5
    """How many times longer its mean request may take."""
    min_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Requests of the new version in a step before it is judged."""

    rules = (
        Rule(
            "self.steps.all(step, self.steps.exists_one(other, other.weight == step.weight))",
            "steps: each weight once",
            lambda canary: len({step.weight for step in canary.steps}) == len(canary.steps),
        ),
    )


class Rollout(ApiModel):
    """How the job's result takes its name over."""

    canary: Canary | None = None
    """Step by step; without it at once."""


class Tally(ApiModel):
    """What a version's pods have counted, together."""

    requests: Annotated[int, Field(ge=0)] = 0
    """Requests that were answered."""
    errors: Annotated[int, Field(ge=0)] = 0
    """How many of them failed."""
    seconds: Annotated[float, Field(ge=0)] = 0
    """How long they took."""

    def since(self, begin: "Tally") -> "Tally":
        """Return what was counted since then; pods that came or went in between count from their own beginning."""
        if self.requests < begin.requests:
            return self
        return Tally(
            requests=self.requests - begin.requests,
            errors=max(0, self.errors - begin.errors),
            seconds=max(0.0, self.seconds - begin.seconds),
        )


class AbortedRollout(ApiModel):
    """A new version that did worse than the one before."""

    job: JobName
    """The FineTuneJob that trained it."""
    message: Annotated[str, Field(max_length=1024)]
    """In what, with the figures."""


class RolloutStatus(ApiModel):
    """How far the versions of one public model name are."""

    name: Annotated[str, Field(max_length=63)]
    """The public model name."""
    stable: JobName
    """The FineTuneJob whose result answers."""
    previous: JobName | None = None
    """The one before, which stays loaded."""
    candidate: JobName | None = None
    """The one that is rolled out just now."""
    step: Annotated[int, Field(ge=0)] = 0
    """Index of the canary's step."""
    step_time: Time | None = None
    """When the step began; none while the candidate is not loaded by all pods."""
    stable_tally: Tally = Tally()
    """What the stable version had counted then."""
    candidate_tally: Tally = Tally()
    """What the candidate had counted then."""
    aborted: Annotated[list[AbortedRollout], Field(max_length=16)] = []
    """New versions that were taken back; they are not tried again."""
