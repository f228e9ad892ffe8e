"""Rollout of a new version under a model name: all at once, or as a canary with a growing share of the traffic."""

from typing import Annotated

from pydantic import Field

from finetune_api.model import ApiModel, Rule, Time

JobName = Annotated[str, Field(max_length=63)]


class CanaryStep(ApiModel):
    """One step of a canary: a share of the traffic and its duration."""

    weight: Annotated[int, Field(ge=1, le=99)]
    """Share of the requests that the new version gets, in percent."""
    seconds: Annotated[int, Field(ge=1, le=604_800)] = 300
    """Duration of the step in seconds, counted from when all pods have loaded the version."""


class Canary(ApiModel):
    """Gives a new version a growing share of the traffic, and rolls it back if it performs worse than the old one."""

    steps: Annotated[list[CanaryStep], Field(min_length=1, max_length=16)] = [
        CanaryStep(weight=10),
        CanaryStep(weight=50),
    ]
    """The steps in order. After the last one the new version gets all requests. Default: 10 % and then 50 %, for 300
    seconds each."""
    max_error_rate_increase: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Maximum difference between the error rates (status 500 and above) of the new and the stable version, as a
    fraction of the requests. Above it the new version is rolled back."""
    max_latency_ratio: Annotated[float, Field(ge=1, le=100)] = 1.5
    """Maximum ratio of the mean latencies of the new and the stable version. Above it the new version is rolled
    back."""
    min_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Minimum number of requests to the new version in a step before error rate and latency are compared."""

    rules = (
        Rule(
            "self.steps.all(step, self.steps.exists_one(other, other.weight == step.weight))",
            "steps: each weight must be unique",
            lambda canary: len({step.weight for step in canary.steps}) == len(canary.steps),
        ),
    )


class Rollout(ApiModel):
    """How traffic shifts to the job's result."""

    canary: Canary | None = None
    """Shifts the traffic step by step. Default: all at once."""


class Tally(ApiModel):
    """Request counts of a version, summed over its pods."""

    requests: Annotated[int, Field(ge=0)] = 0
    """Number of answered requests."""
    errors: Annotated[int, Field(ge=0)] = 0
    """Number of these requests that failed (status 500 and above)."""
    seconds: Annotated[float, Field(ge=0)] = 0
    """Total duration of these requests in seconds."""

    def since(self, start: "Tally") -> "Tally":
        """Return the difference to an earlier count, or the whole count if pods were replaced and it has fallen."""
        if self.requests < start.requests:
            return self
        return Tally(
            requests=self.requests - start.requests,
            errors=max(0, self.errors - start.errors),
            seconds=max(0.0, self.seconds - start.seconds),
        )


class AbortedRollout(ApiModel):
    """A new version that was rolled back because it performed worse than the stable one."""

    job: JobName
    """FineTuneJob that trained the version."""
    message: Annotated[str, Field(max_length=1024)]
    """Why it was rolled back, with the values."""


class RolloutStatus(ApiModel):
    """State of the rollout of one public model name."""

    name: Annotated[str, Field(max_length=63)]
    """Model name that clients send."""
    stable: JobName
    """FineTuneJob of the stable version, which gets the requests that the canary does not get."""
    previous: JobName | None = None
    """FineTuneJob of the previous version, which stays loaded."""
    candidate: JobName | None = None
    """FineTuneJob of the version that is being rolled out."""
    step: Annotated[int, Field(ge=0)] = 0
    """Index of the current canary step, starting at 0."""
    step_time: Time | None = None
    """Time when the step started. Not set until all pods have loaded the candidate."""
    stable_tally: Tally = Tally()
    """Request counts of the stable version at that time."""
    candidate_tally: Tally = Tally()
    """Request counts of the candidate at that time."""
    aborted: Annotated[list[AbortedRollout], Field(max_length=16)] = []
    """New versions that were rolled back. They are not rolled out again."""
