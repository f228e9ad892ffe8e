"""Makes examples of one shape into those that a method learns from. Pure."""

from finetune_api.graders import Grader
from finetune_api.training import Method
from finetune_pod.grading import MissingReferenceError, check_reference

from finetune_trainer.prepare.formats import Example
from finetune_trainer.prepare.row_issues import RowError


def convert_example(method: Method, example: Example) -> list[Example]:
    """Return the examples that a method learns from, out of one that `parse_row` returned.

    Args:
        method: the method.
        example: of a format that it accepts.

    Raises:
        RowError: the example lacks what the method needs.
    """
    if method.kto:
        return _unpair(example)
    if method.grpo:
        return [_ask_again(example, method.grpo.graders)]
    return [example]


def _unpair(example: Example) -> list[Example]:
    """A preference is two judged answers."""
    if "label" in example:
        return [example]
    rest = {key: value for key, value in example.items() if key not in ("chosen", "rejected")}
    return [
        rest | {"completion": example["chosen"], "label": True},
        rest | {"completion": example["rejected"], "label": False},
    ]


def _ask_again(example: Example, graders: list[Grader]) -> Example:
    """Of a conversation the last answer is asked for again; the one that is there is for the graders."""
    asked = example if "prompt" in example else _take_answer(example)
    try:
        for grader in graders:
            check_reference(grader, asked["reference"])
    except MissingReferenceError as error:
        raise RowError("reference", f"{error}: add the field, or correct method.grpo.graders") from None
    return asked


def _take_answer(example: Example) -> Example:
    messages = example["messages"]
    last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
    answer = messages[last].get("content")
    if last == 0 or messages[last - 1]["role"] == "assistant":
        raise RowError("user", f"messages[{last}] answers nothing: begin with a message of role user")
    if not answer:
        raise RowError("tool_calls", f"messages[{last}] is a call of a tool: end with an answer in text")
    rest = {key: value for key, value in example.items() if key != "messages"}
    return rest | {"prompt": messages[:last], "reference": {"answer": answer}}
