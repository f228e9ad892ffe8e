"""Who may begin where there is a limit."""

from typing import Any

from finetune_api.jobstatus import Room
from finetune_operator.limits import Occupancy, Turn, find_shortage
from finetune_operator.settings import Limit
from hypothesis import given
from hypothesis import strategies as st


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2)), min_size=1, max_size=12),
    st.integers(4, 8),
    st.randoms(use_true_random=False),
)
def test_jobs_begin_in_their_order_and_within_the_limit(jobs: list[tuple[int, int]], gpus: int, random: Any) -> None:
    """Jobs with GPUs and priorities ask in any order, again and again, until each has run."""
    turns: dict[Turn, int] = {
        (-priority, f"2026-01-01T00:00:{place:02}Z", f"j{place}"): wanted
        for place, (wanted, priority) in enumerate(jobs)
    }
    waiting, running = dict(turns), dict[Turn, int]()
    for _ in range(len(jobs) + 1):
        for turn in random.sample(sorted(waiting), len(waiting)):
            before = min((one for one in waiting if one != turn), default=None)
            others = Occupancy(gpus=sum(running.values()), first={"gpus": before} if before else {})
            if find_shortage("team", Limit(gpus=gpus), turn, Room(gpus=waiting[turn]), others) is None:
                assert turn == min(waiting)
                running[turn] = waiting.pop(turn)
            assert sum(running.values()) <= gpus
        if running:
            running.pop(random.choice(sorted(running)))
    assert not waiting
