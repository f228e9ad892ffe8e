"""How one version of a public model name replaces another: at once or as a canary, and back after a failure. No I/O.

A version is the result of one FineTuneJob. The state of a rollout is in the ModelServer's status, so that a restarted
operator continues it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from finetune_api.rollout import AbortedRollout, Canary, RolloutStatus, Tally

from finetune_operator.state.views import JobView

_MAX_ABORTED = 16


@dataclass(frozen=True)
class VersionTraffic:
    """What the ready pods report about one version of a name."""

    loaded_pods: int = 0
    tally: Tally = field(default_factory=Tally)


def advance_rollout(
    name: str,
    versions: Sequence[JobView],
    before: RolloutStatus | None,
    traffic: Mapping[str, VersionTraffic],
    ready_pods: int,
    now: datetime,
    *,
    is_pinned: bool,
) -> RolloutStatus:
    """Return the next state of a name's rollout.

    Args:
        name: the public model name.
        versions: the jobs that serve under it, in the order in which they passed their gates; at least one.
        before: the state so far; None for a new name.
        traffic: what the pods report, by the version's job.
        ready_pods: number of ready pods.
        now: the current time.
        is_pinned: whether the ModelServer pins a version of the name, which pauses its rollout.
    """
    state = _drop_deleted(name, versions, before)
    aborted = {rollout.job for rollout in state.aborted}
    newest = next((job for job in reversed(versions) if job.name not in aborted), versions[-1])
    order = [job.name for job in versions]
    if is_pinned or order.index(newest.name) <= order.index(state.stable):
        return state.model_copy(update={"candidate": None, "step": 0, "step_time": None})
    canary = _canary_of(newest)
    if canary is None:
        return _promote(state, newest.name)
    if newest.name != state.candidate:
        state = state.model_copy(update={"candidate": newest.name, "step": 0, "step_time": None})
    return _advance_canary(state, canary, traffic, ready_pods, now)


def assign_weights(state: RolloutStatus, versions: Sequence[JobView], pin: str | None) -> list[tuple[JobView, int]]:
    """Return the versions that the pods should load with their weights in percent, the newest version first."""
    jobs = {job.name: job for job in versions}
    if pin in jobs:
        others = [name for name in (state.stable, state.previous) if name and name != pin]
        return [(jobs[pin], 100), *((jobs[name], 0) for name in others[:1])]
    if state.candidate:
        canary = _canary_of(jobs[state.candidate]) or Canary()
        weight = canary.steps[min(state.step, len(canary.steps) - 1)].weight
        return [(jobs[state.candidate], weight), (jobs[state.stable], 100 - weight)]
    return [(jobs[state.stable], 100), *([(jobs[state.previous], 0)] if state.previous else [])]


def _drop_deleted(name: str, versions: Sequence[JobView], before: RolloutStatus | None) -> RolloutStatus:
    """Return the state without deleted jobs; the previous version replaces a deleted stable one."""
    existing = {job.name for job in versions}
    if before is None:
        return RolloutStatus(name=name, stable=versions[0].name)
    aborted = [rollout for rollout in before.aborted if rollout.job in existing]
    previous = before.previous if before.previous in existing else None
    stable = before.stable
    if stable not in existing:
        left = [job.name for job in versions if job.name not in {rollout.job for rollout in aborted}]
        stable, previous = previous or (left or [versions[-1].name])[-1], None
    candidate = before.candidate if before.candidate in existing and before.candidate != stable else None
    return before.model_copy(
        update={"stable": stable, "previous": previous, "candidate": candidate, "aborted": aborted}
    )


def _canary_of(job: JobView) -> Canary | None:
    serving = job.spec.serving if job.spec else None
    return serving.rollout.canary if serving and serving.rollout else None


def _promote(state: RolloutStatus, name: str) -> RolloutStatus:
    return RolloutStatus(name=state.name, stable=name, previous=state.stable, aborted=state.aborted)


def _advance_canary(
    state: RolloutStatus,
    canary: Canary,
    traffic: Mapping[str, VersionTraffic],
    ready_pods: int,
    now: datetime,
) -> RolloutStatus:
    """Start the canary's step once all ready pods have loaded it, compare it, and end the step after its time."""
    name = state.candidate or ""
    candidate, stable = (traffic.get(version, VersionTraffic()) for version in (name, state.stable))
    if state.step_time is None:
        if not 0 < ready_pods <= candidate.loaded_pods:
            return state
        return _start_step(state, state.step, candidate, stable, now)
    # The spec may have been changed to fewer steps meanwhile.
    step = min(state.step, len(canary.steps) - 1)
    problem = check_canary(canary, candidate.tally.since(state.candidate_tally), stable.tally.since(state.stable_tally))
    if problem:
        aborted = [*state.aborted, AbortedRollout(job=name, message=problem)][-_MAX_ABORTED:]
        return RolloutStatus(name=state.name, stable=state.stable, previous=state.previous, aborted=aborted)
    if now - state.step_time < timedelta(seconds=canary.steps[step].seconds):
        return state
    if step + 1 == len(canary.steps):
        return _promote(state, name)
    return _start_step(state, step + 1, candidate, stable, now)


def _start_step(
    state: RolloutStatus, step: int, candidate: VersionTraffic, stable: VersionTraffic, now: datetime
) -> RolloutStatus:
    return state.model_copy(
        update={"step": step, "step_time": now, "candidate_tally": candidate.tally, "stable_tally": stable.tally}
    )


def check_canary(canary: Canary, candidate: Tally, stable: Tally) -> str:
    """Return how a canary is worse than the stable version, with figures; empty if it is not.

    Args:
        canary: the limits of the comparison.
        candidate: the canary's requests in this step.
        stable: the stable version's requests in this step.
    """
    if candidate.requests < canary.min_requests:
        return ""
    error_rate, stable_error_rate = candidate.errors / candidate.requests, stable.errors / max(stable.requests, 1)
    if error_rate > stable_error_rate + canary.max_error_rate_increase:
        return (
            f"{error_rate:.1%} of the canary's {candidate.requests} requests failed,"
            f" {stable_error_rate:.1%} of the stable version's"
        )
    seconds, stable_seconds = candidate.seconds / candidate.requests, stable.seconds / max(stable.requests, 1)
    if stable.requests >= canary.min_requests and seconds > stable_seconds * canary.max_latency_ratio:
        return f"the canary's requests took {seconds:.2f} s on average, the stable version's {stable_seconds:.2f} s"
    return ""
