"""A job that the machine cannot run is refused before anything starts."""

import pytest
from finetune.errors import CommandError
from finetune.local import machine
from finetune.local.machine import check_machine
from unit.specs import spec


@pytest.mark.parametrize(
    ("gpus", "nodes", "message"), [(2, 1, "compute.resources.gpus is 2.* has 1"), (0, 2, "compute.nodes is 2")]
)
def test_more_than_the_machine_has_is_refused(
    gpus: int, nodes: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "count_gpus", lambda: 1)
    with pytest.raises(CommandError, match=message):
        check_machine(spec(compute={"nodes": nodes, "resources": {"gpus": gpus}}))


@pytest.mark.parametrize("gpus", [0, 1])
def test_what_the_machine_has_is_used(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "count_gpus", lambda: 1)
    check_machine(spec(compute={"resources": {"gpus": gpus}}))
