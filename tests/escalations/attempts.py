"""The groups of attempts, and their summary."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from escalations.calls import attempt_calls
from escalations.fields import attempt_fields
from escalations.limits import attempt_names, attempt_places, attempt_sizes
from escalations.references import attempt_secrets, attempt_uris
from escalations.scene import SUCCEEDED, Attempt, Scene
from escalations.takeover import attempt_takeovers
from escalations.words import attempt_words

GROUPS: dict[str, Callable[[Scene], Iterator[Attempt]]] = {
    "takeovers": attempt_takeovers,
    "calls": attempt_calls,
    "fields": attempt_fields,
    "places": attempt_places,
    "names": attempt_names,
    "sizes": attempt_sizes,
    "uris": attempt_uris,
    "secrets": attempt_secrets,
    "words": attempt_words,
}


def summarize(attempts: Iterable[Attempt]) -> dict[str, Any]:
    """Return the number of attempts by outcome."""
    outcomes = Counter(attempt.outcome for attempt in attempts)
    succeeded = outcomes.pop(SUCCEEDED, 0)
    return {"attempts": outcomes.total() + succeeded, "successes": succeeded} | dict(sorted(outcomes.items()))
