"""The work queue."""

import asyncio

from finetune_operator.kube.workqueue import WorkQueue
from unit.stored import KEY


def open_queue() -> WorkQueue:
    queue = WorkQueue(lambda key: key.name.startswith("new"))
    queue.open([])
    return queue


async def test_new_keys_go_first_except_on_every_sixteenth_turn() -> None:
    queue = open_queue()
    for number in range(3):
        queue.add(KEY._replace(name=f"old-{number}"))
    for number in range(32):
        queue.add(KEY._replace(name=f"new-{number}"))
    order = [(await queue.get()).name for _ in range(35)]
    new, old = iter(range(32)), iter(range(3))
    turns = [f"old-{next(old)}" if turn in (16, 32, 35) else f"new-{next(new)}" for turn in range(1, 36)]
    assert order == turns


async def test_a_key_that_was_new_keeps_its_place() -> None:
    new: set[str] = {"a"}
    queue = WorkQueue(lambda key: key.name in new)
    queue.open([KEY._replace(name="b"), KEY._replace(name="a")])
    new.clear()
    queue.add(KEY._replace(name="a"))
    new.add("b")
    queue.add(KEY._replace(name="b"))
    assert [(await queue.get()).name for _ in range(2)] == ["a", "b"]
    assert not queue


async def test_a_closed_queue_ignores_keys() -> None:
    queue = WorkQueue(lambda key: key.name.startswith("new"))
    queue.add(KEY._replace(name="gone by then"))
    assert len(queue) == 0
    queue.open([KEY])
    assert await queue.get() == KEY


async def test_a_key_that_is_added_while_in_processing_is_queued_again() -> None:
    queue = open_queue()
    queue.add(KEY)
    queue.add(KEY)
    assert await queue.get() == KEY
    queue.add(KEY)
    assert len(queue) == 0
    queue.done(KEY)
    assert await queue.get() == KEY
    queue.done(KEY)
    assert len(queue) == 0


async def test_the_delay_grows_with_each_failure() -> None:
    queue = open_queue()
    delays = []
    for _ in range(4):
        queue.add(KEY)
        await queue.get()
        delays.append(queue.requeue(KEY))
    assert delays[-1] > delays[0]
    assert await asyncio.wait_for(queue.get(), 5) == KEY


async def test_the_earliest_delay_counts() -> None:
    queue = open_queue()
    queue.add_after(KEY, 0.01)
    queue.add_after(KEY, 60)
    assert await asyncio.wait_for(queue.get(), 5) == KEY
