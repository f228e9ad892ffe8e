"""How much is tried, by which seed, and what came of it: one line of JSON, for `make fuzz`."""

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
    """What a run may try, and what it has tried."""

    objects: int
    transitions: int
    reports: int
    seed: int
    only: str
    counts: Counter[str] = field(default_factory=Counter)

    def count(self, what: str, many: int = 1) -> None:
        """Count something that was tried, or what came of it."""
        self.counts[what] += many


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fuzz")
    group.addoption("--objects", type=int, default=400, help="worlds that are drawn and planned for")
    group.addoption("--transitions", type=int, default=120, help="mutations of live objects")
    group.addoption("--reports", type=int, default=400, help="hostile reports")
    group.addoption("--seed", type=int, default=1, help="what is drawn; the same seed draws the same")
    group.addoption("--only", default="", help="only mutations of live objects whose label holds this")
    group.addoption("--counts", type=Path, help="file for the counts, as JSON")


_BUDGET = pytest.StashKey[Budget]()


def pytest_configure(config: pytest.Config) -> None:
    names = ("objects", "transitions", "reports", "seed", "only")
    config.stash[_BUDGET] = Budget(**{name: config.getoption(f"--{name}") for name in names})


@pytest.fixture(scope="session")
def budget(request: pytest.FixtureRequest) -> Budget:
    """What this run may try."""
    return request.config.stash[_BUDGET]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    budget = config.stash[_BUDGET]
    problems = sum(len(terminalreporter.stats.get(outcome, [])) for outcome in ("failed", "error"))
    line = json.dumps({"seed": budget.seed, **dict(sorted(budget.counts.items())), "problems": problems})
    terminalreporter.write_line(line)
    if path := config.getoption("--counts"):
        Path(path).write_text(line + "\n")
