"""What is read of an object that another version or another writer left."""

from finetune_operator.state.views import view_job
from unit.objects import condition, job


def test_an_unreadable_part_of_a_status_is_left_out_and_the_rest_is_read() -> None:
    status = {
        "attempts": {"train": -1},
        "startTime": "0000-01-01T00:00:00Z",
        "stage": "Train",
        "conditions": [condition("Trained", "0000-01-01T00:00:00Z"), condition("DatasetReady"), "nonsense"],
    }
    read = view_job(job(status=status)).status
    assert (read.stage, read.start_time, read.attempts.train) == ("Train", None, 0)
    assert [condition.type for condition in read.conditions] == ["DatasetReady"]
