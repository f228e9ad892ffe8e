"""How the versions of a public model name follow one another: at once, as a canary, back again. Pure.

What was decided is kept in the ModelServer's status, so that an operator that was away goes on where it stood.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from finetune_api.rollout import AbortedRollout, Canary, RolloutStatus, Tally

from finetune_operator.state.views import JobView

_MOST_ABORTED = 16


@dataclass(frozen=True)
class Traffic:
    """What the ready pods say of one version of a name."""

    loaded_pods: int = 0
    tally: Tally = field(default_factory=Tally)


def advance(
    name: str,
    proven: Sequence[JobView],
    before: RolloutStatus | None,
    traffic: Mapping[str, Traffic],
    ready_pods: int,
    now: datetime,
    *,
    is_pinned: bool,
) -> RolloutStatus:
    """Return where a name's rollout stands now.

    Args:
        name: the public model name.
        proven: the jobs that serve under it, in the order in which they were proven; at least one.
        before: where it stood.
        traffic: by job, what the pods say.
        ready_pods: how many pods are ready.
        now: the time.
        is_pinned: whether the ModelServer names a version itself; then nothing goes on by itself.
    """
    state = _without_missing(name, proven, before)
    refused = {one.job for one in state.aborted}
    newest = next((job for job in reversed(proven) if job.name not in refused), proven[-1])
    order = [job.name for job in proven]
    if is_pinned or order.index(newest.name) <= order.index(state.stable):
        return state.model_copy(update={"candidate": None, "step": 0, "step_time": None})
    canary = _canary_of(newest)
    if canary is None:
        return _promote(state, newest.name)
    if newest.name != state.candidate:
        state = state.model_copy(update={"candidate": newest.name, "step": 0, "step_time": None})
    return _follow(state, canary, traffic, ready_pods, now)


def shares(state: RolloutStatus, proven: Sequence[JobView], pin: str | None) -> list[tuple[JobView, int]]:
    """Return the versions that the pods should have loaded with their share in percent, the newest first."""
    jobs = {job.name: job for job in proven}
    if pin in jobs:
        others = [name for name in (state.stable, state.previous) if name and name != pin]
        return [(jobs[pin], 100), *((jobs[name], 0) for name in others[:1])]
    if state.candidate:
        canary = _canary_of(jobs[state.candidate]) or Canary()
        weight = canary.steps[min(state.step, len(canary.steps) - 1)].weight
        return [(jobs[state.candidate], weight), (jobs[state.stable], 100 - weight)]
    return [(jobs[state.stable], 100), *([(jobs[state.previous], 0)] if state.previous else [])]


def _without_missing(name: str, proven: Sequence[JobView], before: RolloutStatus | None) -> RolloutStatus:
    """Return the state without jobs that were deleted; the one before takes the place of a stable one that went."""
    there = {job.name for job in proven}
    if before is None:
        return RolloutStatus(name=name, stable=proven[0].name)
    aborted = [one for one in before.aborted if one.job in there]
    previous = before.previous if before.previous in there else None
    stable = before.stable
    if stable not in there:
        left = [job.name for job in proven if job.name not in {one.job for one in aborted}]
        stable, previous = previous or (left or [proven[-1].name])[-1], None
    candidate = before.candidate if before.candidate in there and before.candidate != stable else None
    return before.model_copy(
        update={"stable": stable, "previous": previous, "candidate": candidate, "aborted": aborted}
    )


def _canary_of(job: JobView) -> Canary | None:
    serving = job.spec.serving if job.spec else None
    return serving.rollout.canary if serving and serving.rollout else None


def _promote(state: RolloutStatus, name: str) -> RolloutStatus:
    return RolloutStatus(name=state.name, stable=name, previous=state.stable, aborted=state.aborted)


def _follow(
    state: RolloutStatus, canary: Canary, traffic: Mapping[str, Traffic], ready_pods: int, now: datetime
) -> RolloutStatus:
    """Begin the canary's step once it is loaded, judge it, and go to the next one when its time is over."""
    candidate = state.candidate or ""
    mine, stable = (traffic.get(name, Traffic()) for name in (candidate, state.stable))
    if state.step_time is None:
        if not 0 < ready_pods <= mine.loaded_pods:
            return state
        return _begin_step(state, state.step, mine, stable, now)
    # The rollout may have been given fewer steps meanwhile.
    step = min(state.step, len(canary.steps) - 1)
    problem = find_fault(canary, mine.tally.since(state.candidate_tally), stable.tally.since(state.stable_tally))
    if problem:
        aborted = [*state.aborted, AbortedRollout(job=candidate, message=problem)][-_MOST_ABORTED:]
        return RolloutStatus(name=state.name, stable=state.stable, previous=state.previous, aborted=aborted)
    if now - state.step_time < timedelta(seconds=canary.steps[step].seconds):
        return state
    if step + 1 == len(canary.steps):
        return _promote(state, candidate)
    return _begin_step(state, step + 1, mine, stable, now)


def _begin_step(state: RolloutStatus, step: int, mine: Traffic, stable: Traffic, now: datetime) -> RolloutStatus:
    return state.model_copy(
        update={"step": step, "step_time": now, "candidate_tally": mine.tally, "stable_tally": stable.tally}
    )


def find_fault(canary: Canary, mine: Tally, stable: Tally) -> str:
    """Return in what a canary does worse than the stable version, with the figures; empty where it does not."""
    if mine.requests < canary.min_requests:
        return ""
    rate, usual = mine.errors / mine.requests, stable.errors / max(stable.requests, 1)
    if rate > usual + canary.max_error_rate_increase:
        return f"{rate:.1%} of its {mine.requests} requests failed, {usual:.1%} of the stable version's"
    seconds, usual_seconds = mine.seconds / mine.requests, stable.seconds / max(stable.requests, 1)
    if stable.requests >= canary.min_requests and seconds > usual_seconds * canary.max_latency_ratio:
        return f"its requests took {seconds:.2f} s in the mean, the stable version's {usual_seconds:.2f} s"
    return ""
