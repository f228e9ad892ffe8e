"""The split of the training data for early stopping."""

from finetune_trainer.train.examples import split_validation


def test_examples_with_the_same_prompt_are_in_the_same_part() -> None:
    from datasets import Dataset

    groups = [number // 3 for number in range(60)]
    examples = Dataset.from_dict({"group": groups, "number": list(range(60))})
    train, validation = split_validation(examples, 0.1, seed=1)
    assert sorted([*train["number"], *validation["number"]]) == list(range(60))
    assert 6 <= len(validation) <= 8
    assert {groups[number] for number in train["number"]}.isdisjoint(groups[number] for number in validation["number"])
    assert train.column_names == ["number"]
    other, _ = split_validation(examples, 0.1, seed=2)
    assert list(other["number"]) != list(train["number"])


def test_some_examples_are_left_to_train_on() -> None:
    from datasets import Dataset

    train, validation = split_validation(Dataset.from_dict({"group": [1, 1, 2], "x": [0, 0, 0]}), 0.9, seed=1)
    assert len(train) >= 1
    assert len(validation) >= 1
