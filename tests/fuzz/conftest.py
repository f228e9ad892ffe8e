"""Options for the counts and the seed; prints the results as one line of JSON for `make fuzz`."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from api.conftest import account, cluster, operator

__all__ = ["account", "cluster", "operator"]


@dataclass
class Budget:
    """The number of inputs that a run may try, its seed, and its counts so far."""

    objects: int
    transitions: int
    reports: int
    seed: int
    only: str
    counts: Counter[str] = field(default_factory=Counter)

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter of inputs or outcomes."""
        self.counts[name] += number


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fuzz")
    group.addoption("--objects", type=int, default=400, help="number of worlds to generate and plan")
    group.addoption("--transitions", type=int, default=120, help="number of mutations of live objects")
    group.addoption("--reports", type=int, default=400, help="number of hostile reports")
    group.addoption("--seed", type=int, default=1, help="seed of the generated inputs")
    group.addoption("--only", default="", help="run only mutations of live objects whose label contains this")
    group.addoption("--counts", type=Path, help="file for the counts, as JSON")


_BUDGET = pytest.StashKey[Budget]()


def pytest_configure(config: pytest.Config) -> None:
    names = ("objects", "transitions", "reports", "seed", "only")
    config.stash[_BUDGET] = Budget(**{name: config.getoption(f"--{name}") for name in names})


@pytest.fixture(scope="session")
def budget(request: pytest.FixtureRequest) -> Budget:
    """The budget of this run."""
    return request.config.stash[_BUDGET]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    budget = config.stash[_BUDGET]
    problems = sum(len(terminalreporter.stats.get(outcome, [])) for outcome in ("failed", "error"))
    line = json.dumps({"seed": budget.seed, **dict(sorted(budget.counts.items())), "problems": problems})
    terminalreporter.write_line(line)
    if path := config.getoption("--counts"):
        Path(path).write_text(line + "\n")
