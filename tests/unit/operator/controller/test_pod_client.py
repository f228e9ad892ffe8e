"""Progress from the metrics of a training pod."""

import pytest
from finetune_operator.controller.pod_client import parse_progress
from hypothesis import given
from hypothesis import strategies as st

METRICS = """
# TYPE finetune_train_step gauge
finetune_train_step 41.0
finetune_train_steps 102.0
finetune_train_loss 2.125
finetune_train_remaining_seconds 95.4
"""


def test_progress_is_read_from_metrics() -> None:
    progress = parse_progress(METRICS)
    assert progress is not None
    assert progress.to_dict() == {
        "percentage": 40,
        "step": 41,
        "steps": 102,
        "remainingSeconds": 95,
        "loss": 2.125,
        "text": "40% 1m35s left",
    }


@pytest.mark.parametrize(
    "text",
    ["", "garbage {", "finetune_train_step 5\n", "finetune_train_step 5\nfinetune_train_steps 4\n"],
)
def test_missing_and_contradictory_metrics_mean_no_progress(text: str) -> None:
    assert parse_progress(text) is None


@given(st.text(max_size=300))
def test_any_text_can_be_parsed(text: str) -> None:
    parse_progress(text)


def test_a_loss_that_is_not_a_number_is_left_out() -> None:
    progress = parse_progress("finetune_train_step 1\nfinetune_train_steps 2\nfinetune_train_loss NaN\n")
    assert progress is not None
    assert progress.loss is None


@pytest.mark.parametrize(
    "text",
    [
        "finetune_train_step 1e400\nfinetune_train_steps 1e400\n",
        "finetune_train_step Inf\nfinetune_train_steps Inf\n",
        "finetune_train_step 1 1\nfinetune_train_steps 2 2\n",
        'finetune_train_step{a="' + "\\" * 100_000,
    ],
)
def test_infinite_and_malformed_metrics_mean_no_progress(text: str) -> None:
    assert parse_progress(text) is None
