"""Finds what a chat template leaves out of a prompt: the server leaves it out too, so the model never sees it."""

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from finetune_pod.requests import Message, get_parts
from finetune_pod.template import ChatTemplate, TemplateError
from finetune_pod.turns import contains, find_end, split_reasoning

from finetune_trainer.prepare.formats import Example
from finetune_trainer.prepare.row_issues import RowWarning

_MARK = "x7q"
"""Makes the names in a probe unlike any text of a template."""


def find_omissions(template: ChatTemplate, example: Example, prompt: str, last_answer: int) -> Iterator[RowWarning]:
    """Yield a warning for the first part of a prompt, and one for the first part of a tool, that is left out.

    Args:
        template: the model's.
        example: the example.
        prompt: the rendered prompt of its last answer.
        last_answer: the index of that answer in a conversation.
    """
    field = "messages" if "messages" in example else "prompt"
    messages = example[field][:last_answer] if field == "messages" else example[field]
    omitted = (find_omitted(messages, field, prompt), _find_omitted_tool(template, json.dumps(example.get("tools"))))
    for location in filter(None, omitted):
        yield RowWarning(
            "omitted",
            f"the model's chat template leaves out {location}, in training and when it serves: put it into another"
            " message, or use a model whose template renders it",
        )
    for index, message in enumerate(messages):
        name = message.get("name")
        if name and message["role"] != "tool" and name not in prompt:
            yield RowWarning(
                "name", f"the model's chat template omits {field}[{index}].name: write the name into the content"
            )


def find_omitted(messages: list[Message], field: str, text: str) -> str:
    """Return the first part of the messages that a rendered text does not contain; empty if it contains all.

    The reasoning of earlier answers does not count: models are not given it.
    """
    position = 0
    for index, message in enumerate(messages):
        # Templates may move system messages anywhere; all other messages keep their order.
        keeps_order = message["role"] not in ("system", "developer")
        contents = split_reasoning(message)[1] if message["role"] == "assistant" else get_parts(message.get("content"))
        for content in contents:
            end = find_end(text, content.strip(), position if keeps_order else 0)
            if end is None:
                return f"{field}[{index}].content"
            position = end if keeps_order else position
        for number, call in enumerate(message.get("tool_calls") or []):
            if not _contains_call(text, call["function"]):
                return f"{field}[{index}].tool_calls[{number}]"
    return ""


@lru_cache(256)
def _find_omitted_tool(template: ChatTemplate, tools: str) -> str:
    """Return the first part of the tools that a template does not render; each part gets a mark to find it by."""
    parsed = json.loads(tools) or []
    marked = [_mark_tool(index, tool) for index, tool in enumerate(parsed)]
    try:
        text = template.render([{"role": "user", "content": "a"}], marked, prompts=True)
    except TemplateError:
        return ""
    for index, (tool, probe) in enumerate(zip(parsed, marked, strict=True)):
        location = f"tools[{index}]"
        if probe["function"]["name"] not in text:
            return location
        if tool["function"].get("description") and probe["function"]["description"] not in text:
            return f"{location}.function.description"
        properties = (tool["function"].get("parameters") or {}).get("properties") or {}
        marks = probe["function"]["parameters"].get("properties", {})
        for name, mark in zip(properties, marks, strict=True):
            if mark not in text:
                return f"{location}.function.parameters.properties.{name}"
    return ""


def _mark_tool(index: int, tool: dict[str, Any]) -> dict[str, Any]:
    """Return a tool with marked names and a marked description."""
    function = tool["function"]
    parameters = dict(function.get("parameters") or {})
    if isinstance(properties := parameters.get("properties"), dict):
        marks = {name: f"{_MARK}property{index}n{number}" for number, name in enumerate(properties)}
        parameters["properties"] = {marks[name]: value for name, value in properties.items()}
        parameters["required"] = [marks[name] for name in parameters.get("required") or [] if name in marks]
    marked = function | {"name": f"{_MARK}tool{index}", "parameters": parameters}
    if function.get("description"):
        marked["description"] = f"{_MARK}description{index}"
    return {"type": "function", "function": marked}


def _contains_call(text: str, function: dict[str, Any]) -> bool:
    """Return whether a text contains a tool's name and every string among the call's arguments."""
    values = [value for value in function["arguments"].values() if isinstance(value, str)]
    return function["name"] in text and all(contains(text, value) for value in values)
