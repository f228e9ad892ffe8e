"""Makes examples of one shape into those that a method learns from. Pure."""

from collections.abc import Callable

from finetune_trainer.findings import RowError
from finetune_trainer.formats import Example


def convert_example(example: Example, method: str) -> list[Example]:
    """Return the examples that a method learns from, out of one that `parse_row` returned.

    Args:
        example: of a format that the method accepts.
        method: its field in `spec.method`.

    Raises:
        RowError: the example lacks what the method needs.
    """
    convert = _CONVERSIONS.get(method)
    return convert(example) if convert else [example]


def _unpair(example: Example) -> list[Example]:
    """A preference is two judged answers."""
    if "label" in example:
        return [example]
    rest = {key: value for key, value in example.items() if key not in ("chosen", "rejected")}
    return [
        rest | {"completion": example["chosen"], "label": True},
        rest | {"completion": example["rejected"], "label": False},
    ]


def _ask_again(example: Example) -> list[Example]:
    """Of a conversation the last answer is asked for again; the one that is there is for the graders."""
    if "prompt" in example:
        return [example]
    messages = example["messages"]
    last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
    answer = messages[last].get("content")
    if last == 0 or messages[last - 1]["role"] == "assistant":
        raise RowError("user", f"messages[{last}] answers nothing: begin with a message of role user")
    if not answer:
        raise RowError("tool_calls", f"messages[{last}] is a call of a tool: end with an answer in text")
    rest = {key: value for key, value in example.items() if key != "messages"}
    return [rest | {"prompt": messages[:last], "reference": {"answer": answer}}]


_CONVERSIONS: dict[str, Callable[[Example], list[Example]]] = {"kto": _unpair, "grpo": _ask_again}
