"""Converts examples into those that a training method uses. No I/O."""

from finetune_api.graders import Grader
from finetune_api.training import Method
from finetune_pod.grading import MissingReferenceError, check_reference
from finetune_pod.measurable import get_text
from finetune_pod.requests import find_last_answer
from finetune_pod.turns import strip_reasoning

from finetune_trainer.prepare.formats import MESSAGE_FIELDS, Example
from finetune_trainer.prepare.row_issues import RowError


def convert_example(method: Method, example: Example, *, strips_reasoning: bool = False) -> list[Example]:
    """Return the examples that a method trains on.

    Args:
        method: the job's.
        strips_reasoning: whether to remove the reasoning of the assistant's messages.
        example: from `parse_row`, of a format that the method accepts.

    Raises:
        RowError: the example lacks something that the method needs.
    """
    if strips_reasoning:
        example = _strip_reasoning(example)
    if method.kto:
        return _unpair(example)
    if method.grpo:
        return [_build_prompt(example, method.grpo.graders)]
    return [example]


def _strip_reasoning(example: Example) -> Example:
    lists = {name: value for name, value in example.items() if name in MESSAGE_FIELDS}
    stripped = {name: [strip_reasoning(message) for message in messages] for name, messages in lists.items()}
    for name, messages in stripped.items():
        for index, message in enumerate(messages):
            if message["role"] == "assistant" and not get_text(message) and not message.get("tool_calls"):
                raise RowError(
                    "reasoning", f"{name}[{index}] is only reasoning, which dataset.reasoning strips: remove it"
                )
    if "chosen" in stripped and stripped["chosen"] == stripped["rejected"]:
        raise RowError("equal", "chosen and rejected differ in their reasoning only, which dataset.reasoning strips")
    return example | stripped


def _unpair(example: Example) -> list[Example]:
    """Convert a preference into two completions with labels."""
    if "label" in example:
        return [example]
    rest = {key: value for key, value in example.items() if key not in ("chosen", "rejected")}
    return [
        rest | {"completion": example["chosen"], "label": True},
        rest | {"completion": example["rejected"], "label": False},
    ]


def _build_prompt(example: Example, graders: list[Grader]) -> Example:
    """Convert a conversation into a prompt with its last answer as the reference for the graders."""
    prompt = example if "prompt" in example else _split_last_answer(example)
    try:
        for grader in graders:
            check_reference(grader, prompt["reference"])
    except MissingReferenceError as error:
        raise RowError("reference", f"{error}: add the field, or correct method.grpo.graders") from None
    return prompt


def _split_last_answer(example: Example) -> Example:
    messages = example["messages"]
    last = find_last_answer(messages)
    answer = get_text(messages[last])
    if last == 0 or messages[last - 1]["role"] == "assistant":
        raise RowError("user", f"messages[{last}] follows no question: add a message of role user before it")
    if not answer:
        raise RowError("tool_calls", f"messages[{last}] has only tool calls: end with an answer that has content")
    rest = {key: value for key, value in example.items() if key != "messages"}
    return rest | {"prompt": messages[:last], "reference": {"answer": answer}}
