"""The choice of parsers: those that read back what the template writes, a pair of one model first."""

from typing import Any

import pytest
from finetune_api.modelserver import AUTO, NO_PARSER
from finetune_pod.chat import Answer
from finetune_pod.toolcalls import Call
from finetune_pod.turns import Turn
from finetune_serving.answer_reader import ReadAnswer
from finetune_serving.parser_choice import Probe, choose_parsers

CALL = Call("find", {"id": 7})


def probe(text: str, reasoning: str = "", content: str = "", calls: tuple[Call, ...] = ()) -> Probe:
    answer = Answer([], [], Turn("", text, None, (), 1), stops=True)
    return Probe([], None, answer, text, ReadAnswer(reasoning, content, calls))


TEXT = probe("good day", content="good day")
THOUGHT = probe("<think>be kind</think>good day", "be kind", "good day")
CALLS = probe('<tool_call>{"name": "find"}</tool_call>', calls=(CALL,))
THOUGHT_AND_CALL = probe('<think>look</think><tool_call>{"name": "find"}</tool_call>', "look", calls=(CALL,))
ALL = [TEXT, THOUGHT, CALLS, THOUGHT_AND_CALL]


class Parsers:
    """Parsers that can read, and notes which pairs were tried."""

    def __init__(self, tools: set[str], reasonings: set[str], pairs: set[tuple[str, str]] | None = None) -> None:
        self.tools, self.reasonings, self.pairs = tools, reasonings, pairs
        self.tried: list[tuple[str, str]] = []

    def __call__(self, probe: Probe, tool: str, reasoning: str, *, stream: bool) -> ReadAnswer | None:  # noqa: ARG002
        self.tried.append((tool, reasoning))
        if self.pairs is not None and (tool, reasoning) not in self.pairs:
            return None
        expected = probe.expected
        thought, content = expected.reasoning, expected.content
        if reasoning not in self.reasonings:
            thought, content = "", f"{thought}{content}"
        return ReadAnswer(thought, content, expected.calls if tool in self.tools else ())


def choose(probes: list[Probe], read: Any, tool: str = AUTO, reasoning: str = AUTO) -> tuple[str, str, str]:
    chosen = choose_parsers(probes, tool, reasoning, read)
    return chosen.tool_call_parser, chosen.reasoning_parser, chosen.message


def test_the_first_pair_that_reads_everything_is_chosen() -> None:
    assert choose(ALL, Parsers({"hermes"}, {"qwen3", "deepseek_r1"})) == ("hermes", "qwen3", "")
    assert choose(ALL, Parsers({"hermes", "glm45"}, {"deepseek_r1"})) == ("hermes", "deepseek_r1", "")


def test_two_parsers_of_one_model_come_first() -> None:
    assert choose(ALL, Parsers({"hermes", "glm45"}, {"qwen3", "glm45"}))[:2] == ("glm45", "glm45")


def test_parsers_that_only_work_alone_are_not_combined() -> None:
    parsers = Parsers({"hermes"}, {"qwen3"}, {("hermes", NO_PARSER), (NO_PARSER, "qwen3")})
    assert choose(ALL, parsers)[:2] == ("hermes", NO_PARSER)


def test_what_no_parser_reads_is_explained() -> None:
    unread = "no parser of this vLLM reads the {} that the chat template writes"
    assert choose(ALL, Parsers(set(), set())) == (
        NO_PARSER,
        NO_PARSER,
        f"toolCallParser: {unread.format('tool calls')}; reasoningParser: {unread.format('reasoning')}",
    )
    unwritten = "the chat template writes no {}"
    assert choose([TEXT], Parsers({"hermes"}, {"qwen3"})) == (
        NO_PARSER,
        NO_PARSER,
        f"toolCallParser: {unwritten.format('tool calls')}; reasoningParser: {unwritten.format('reasoning')}",
    )


@pytest.mark.parametrize(
    ("tool", "reasoning", "expected"),
    [
        ("other", AUTO, ("other", "qwen3")),
        (NO_PARSER, AUTO, (NO_PARSER, "qwen3")),
        (AUTO, "other", ("hermes", "other")),
        (AUTO, NO_PARSER, ("hermes", NO_PARSER)),
        ("other", "another", ("other", "another")),
    ],
)
def test_a_parser_that_is_requested_is_not_changed(tool: str, reasoning: str, expected: tuple[str, str]) -> None:
    assert choose(ALL, Parsers({"hermes"}, {"qwen3"}), tool, reasoning) == (*expected, "")


def test_only_the_parsers_for_the_format_are_tried() -> None:
    read = Parsers(set(), set())
    choose([TEXT, probe("[TOOL_CALLS]find", calls=(CALL,))], read)
    assert {tool for tool, _ in read.tried} == {"mistral"}
