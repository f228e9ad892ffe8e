"""The planning of jobs and servers on generated worlds: no exception, and plans that pass `invariants`."""

from collections.abc import Callable
from typing import TypeVar

import pytest
import yaml
from fuzz.conftest import Budget
from fuzz.invariants import find_fault
from fuzz.worlds import World, draw_job_world, draw_server_world
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

_Drawn = TypeVar("_Drawn")


@pytest.mark.parametrize("worlds", [draw_job_world(), draw_server_world()], ids=["FineTuneJob", "ModelServer"])
def test_every_plan_is_valid_and_becomes_stable(worlds: st.SearchStrategy[World], budget: Budget) -> None:
    def check(world: World) -> None:
        budget.count("objects")
        fault = find_fault(world)
        assert not fault, f"{fault}\nrepeat it as a golden case with this observed world:\n{yaml.safe_dump(world)}"

    explore(check, worlds, budget, budget.objects // 2)


def explore(check: Callable[[_Drawn], None], drawn: st.SearchStrategy[_Drawn], budget: Budget, count: int) -> None:
    """Check a number of generated values with the seed of the run."""
    hypothesis_settings = settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False
    )
    seed(budget.seed)(hypothesis_settings(given(drawn)(check)))()
