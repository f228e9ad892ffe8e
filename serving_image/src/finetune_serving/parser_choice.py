"""Chooses vLLM's parsers for the tool calls and the reasoning that a model's chat template writes. No I/O.

Formats differ in details, so the tables only say which parsers to try. A pair is chosen if it reads back what the
template writes: answers with and without reasoning, one call, and two calls if it can write them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from finetune_api.modelserver import AUTO, NO_PARSER, EngineStatus
from finetune_pod.chat import Answer, ChatEncoder
from finetune_pod.requests import Message, Tool
from finetune_pod.template import TemplateError
from finetune_pod.toolcalls import Call

from finetune_serving.answer_reader import ReadAnswer

TOOL_CALL_PARSERS: Mapping[str, tuple[str, ...]] = {
    "<tool_call>": ("hermes", "qwen3_coder", "glm45", "granite"),
    "<|tool_call>": ("gemma4",),
    "[TOOL_CALLS]": ("mistral",),
    "<|tool_call_start|>": ("lfm2",),
    "<|tool_call|>": ("granite",),
    "<|tools_prefix|>": ("apertus",),
    "<|tool_calls_section_begin|>": ("kimi_k2",),
    "<｜tool▁calls▁begin｜>": ("deepseek_v3", "deepseek_v31"),  # noqa: RUF001 - DeepSeek's own bar
    "<｜DSML｜": ("deepseek_v32", "deepseek_v4"),  # noqa: RUF001
    "<atem:function_calls>": ("muse_glimmer",),
    "<minimax:tool_call>": ("minimax_m2",),
    "<longcat_tool_call>": ("longcat",),
    '"parameters": ': ("llama3_json",),
    "(": ("pythonic",),
}
"""The parsers to try, by what the text of a call contains. The first entry that matches counts."""
REASONING_PARSERS: Mapping[str, tuple[str, ...]] = {
    "</think>": ("qwen3", "deepseek_r1", "glm45", "deepseek_v3", "deepseek_v4", "kimi_k2", "minimax_m2"),
    "<channel|>": ("gemma4",),
    "[/THINK]": ("mistral",),
    " to=self": ("muse_glimmer",),
}
"""The parsers to try, by what the text of an answer with reasoning contains."""


class Read(Protocol):
    """Reads a probe with a parser for tool calls and one for reasoning; each may be `None`."""

    def __call__(self, probe: "Probe", tool: str, reasoning: str, *, stream: bool) -> ReadAnswer | None:
        """Return what a client gets, whole or as a stream; None if the parsers fail."""


_PARAMETERS: dict[str, dict[str, Any]] = {
    "find_parcel": {"number": {"type": "string", "description": "Number of the parcel"}},
    "book_courier": {
        "address": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "floor": {"type": "integer"}},
            "description": "Where to",
        },
        "days": {"type": "array", "items": {"type": "string"}, "description": "Days of the week"},
        "express": {"type": "boolean", "description": "Whether it is urgent"},
        "weight": {"type": "number", "description": "Kilograms"},
    },
}
_TOOLS: list[Tool] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": name,
            "parameters": {"type": "object", "properties": properties, "required": list(properties)},
        },
    }
    for name, properties in _PARAMETERS.items()
]
_CALLS = (
    Call("find_parcel", {"number": "P7"}),
    Call(
        "book_courier",
        {"address": {"city": "Málaga", "floor": 3}, "days": ["Mon", "Tue"], "express": True, "weight": 2.5},
    ),
)
_CALL_IDS = ("call00001", "call00002")
"""Mistral's templates accept only ids of nine letters and digits."""
_QUESTION: Message = {"role": "user", "content": "Is parcel 7 here?"}
_RESULT: Message = {"role": "tool", "tool_call_id": _CALL_IDS[0], "name": _CALLS[0].name, "content": "at nine"}
_CONTENT, _REASONING = "It came at nine.", "The list says nine."


@dataclass(frozen=True)
class Probe:
    """An answer as the template writes it, and what a client must get of it."""

    prompt: list[Message]
    tools: list[Tool] | None
    answer: Answer
    text: str
    """The answer as text."""
    expected: ReadAnswer


def write_probes(encoder: ChatEncoder) -> list[Probe]:
    """Return those of the answers that the chat template can write: with and without tools, calls and reasoning.

    If it has a switch, there are also answers after the prompt that switches reasoning off. Some answers follow an
    earlier one or the result of a tool: what ends the reasoning of an earlier message must not end that of a later one.
    """
    kinds: list[tuple[list[Message], list[Tool] | None, str, tuple[Call, ...]]] = [
        ([_QUESTION], None, _CONTENT, ()),
        ([_QUESTION, _build_message(_REASONING, _CONTENT, ()), _QUESTION], None, _CONTENT, ()),
        ([_QUESTION], _TOOLS, _CONTENT, ()),
        ([_QUESTION], _TOOLS, "", _CALLS[:1]),
        ([_QUESTION], _TOOLS, "", _CALLS[1:]),
        ([_QUESTION], _TOOLS, "", _CALLS),
        ([_QUESTION, _build_message(_REASONING, "", _CALLS[:1]), _RESULT], _TOOLS, _CONTENT, ()),
    ]
    written = (
        _write_probe(encoder, prompt, tools, ReadAnswer(reasoning, content, calls), thinks=thinks)
        for prompt, tools, content, calls in kinds
        for reasoning, thinks in (("", None), ("", False), (_REASONING, None))
    )
    probes = [probe for probe in written if probe]
    has_calls = any(probe.expected.calls for probe in probes)
    return [probe for probe in probes if has_calls or _RESULT not in probe.prompt]


def _write_probe(
    encoder: ChatEncoder,
    prompt: list[Message],
    tools: list[Tool] | None,
    expected: ReadAnswer,
    *,
    thinks: bool | None,
) -> Probe | None:
    """Return an answer as the template writes it; None if it cannot, or omits a part."""
    message = _build_message(expected.reasoning, expected.content, expected.calls)
    try:
        if thinks is not None and not encoder.template.has_switch(tools):
            return None
        answer = encoder.encode_answer(prompt, message, tools, thinks=thinks)
    except TemplateError:
        return None
    text = encoder.tokenizer.decode(answer.ids)
    return None if answer.turn.omitted else Probe(prompt, tools, answer, text, expected)


def _build_message(reasoning: str, content: str, calls: tuple[Call, ...]) -> Message:
    """Return an assistant's message in OpenAI's format."""
    message: Message = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = [
            {
                "id": identity,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for identity, call in zip(_CALL_IDS, calls, strict=False)
        ]
    return message | ({"reasoning_content": reasoning} if reasoning else {})


def choose_parsers(probes: list[Probe], tool_call_parser: str, reasoning_parser: str, read: Read) -> EngineStatus:
    """Return the parsers for a model.

    Args:
        probes: what its chat template writes.
        tool_call_parser: `Auto`, or a parser or `None`, which is not changed.
        reasoning_parser: likewise.
        read: reads a probe with a pair of parsers.
    """
    chooses_tool, chooses_reasoning = tool_call_parser == AUTO, reasoning_parser == AUTO
    call_texts = [probe.text for probe in probes if probe.expected.calls]
    reasoning_texts = [probe.text for probe in probes if probe.expected.reasoning]
    tools = _list_candidates(call_texts, TOOL_CALL_PARSERS) if chooses_tool else [tool_call_parser]
    reasonings = _list_candidates(reasoning_texts, REASONING_PARSERS) if chooses_reasoning else [reasoning_parser]

    def suits(tool: str, reasoning: str) -> bool:
        needs_calls = chooses_tool and tool != NO_PARSER
        needs_reasoning = chooses_reasoning and reasoning != NO_PARSER
        needed = [
            probe
            for probe in probes
            if (needs_calls or not probe.expected.calls) and (needs_reasoning or not probe.expected.reasoning)
        ]
        return all(_is_read(probe, tool, reasoning, read, compares_all=needs_reasoning) for probe in needed)

    pairs = _list_pairs(tools, reasonings)
    tool, reasoning = next((pair for pair in pairs if suits(*pair)), (tools[-1], reasonings[-1]))
    problems = []
    if chooses_tool and tool == NO_PARSER:
        problems.append(_explain("toolCallParser", call_texts, "tool calls"))
    if chooses_reasoning and reasoning == NO_PARSER:
        problems.append(_explain("reasoningParser", reasoning_texts, "reasoning"))
    return EngineStatus(tool_call_parser=tool, reasoning_parser=reasoning, message="; ".join(problems))


def _list_candidates(texts: list[str], table: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the parsers to try, and at the end that none is used."""
    names = next((names for marker, names in table.items() if texts and marker in texts[0]), ())
    return [*names, NO_PARSER]


def _list_pairs(tools: list[str], reasonings: list[str]) -> list[tuple[str, str]]:
    """Return the pairs to try: two parsers of one model, two of any models, only for tool calls, only for reasoning."""
    pairs = [(tool, reasoning) for reasoning in reasonings for tool in tools if {tool, reasoning} != {NO_PARSER}]
    return sorted(pairs, key=lambda pair: (pair[0] == NO_PARSER, pair[1] == NO_PARSER, pair[0] != pair[1]))


def _is_read(probe: Probe, tool: str, reasoning: str, read: Read, *, compares_all: bool) -> bool:
    """Return whether a pair of parsers reads a probe back, whole and as a stream.

    Args:
        probe: the probe.
        tool: the parser for tool calls.
        reasoning: the parser for reasoning.
        read: reads the probe.
        compares_all: whether the reasoning must be read too, and the content must have no trace of it.
    """
    for stream in (False, True):
        answer, expected = read(probe, tool, reasoning, stream=stream), probe.expected
        if answer is None or answer.calls != expected.calls or not answer.content.endswith(expected.content):
            return False
        if compares_all and answer != expected:
            return False
    return True


def _explain(field: str, texts: list[str], what: str) -> str:
    if not texts:
        return f"{field}: the chat template writes no {what}"
    return f"{field}: no parser of this vLLM reads the {what} that the chat template writes"
