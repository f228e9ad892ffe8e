"""What the derived trainers change: the warm-up, and the answers with which KTO compares."""

from finetune_trainer.train.trainers import add_mismatched_completions, scale_rate


def test_the_first_step_of_a_warm_up_has_a_rate() -> None:
    rates = [scale_rate(4, lambda step: 1 - step / 10, step) for step in range(6)]
    assert rates == [0.2, 0.4, 0.6, 0.8, 0.6, 0.5]
    assert scale_rate(0, lambda _: 1.0, 0) == 1.0
    assert scale_rate(1, lambda step: step / 1, 0) == 0.5


def test_an_answer_is_compared_with_one_to_another_prompt() -> None:
    examples = {"prompt_ids": [[1], [1], [2], [2]], "completion_ids": [[10], [11], [20], [21]]}
    assert add_mismatched_completions(examples)["KL_completion_ids"] == [[21], [21], [11], [11]]
    alone = {"prompt_ids": [[1], [1]], "completion_ids": [[10], [11]]}
    assert add_mismatched_completions(alone)["KL_completion_ids"] == [[11], [10]]
