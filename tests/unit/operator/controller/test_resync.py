"""When the operator resyncs."""

import asyncio
from typing import Any

import pytest
from finetune_operator.controller.cache import Cache
from finetune_operator.controller.resync import Resync, compute_pause
from finetune_operator.kube.workqueue import WorkQueue


@pytest.mark.parametrize(("listed", "pause"), [(0, 60), (1_500, 60), (30_000, 1_200)])
def test_many_objects_are_resynced_less_often(listed: int, pause: float) -> None:
    assert compute_pause(60, listed) == pause


async def test_a_standby_lists_nothing_until_it_leads() -> None:
    queue, synced = WorkQueue(lambda _: False), asyncio.Event()
    no_client: Any = None  # A request fails.
    task = asyncio.create_task(Resync(no_client, Cache({}), queue, 0).run(synced))
    synced.set()
    for _ in range(100):
        await asyncio.sleep(0)
    assert not task.done()
    queue.open([])
    with pytest.raises(AttributeError, match="list_all"):
        await task
