"""The arguments of vLLM for the parsers and the chat template."""

import pytest
from finetune_api.modelserver import EngineStatus
from finetune_serving.gateway.launch import build_arguments


@pytest.mark.parametrize(
    ("tool", "reasoning", "arguments"),
    [
        ("None", "None", []),
        ("hermes", "None", ["--enable-auto-tool-choice", "--tool-call-parser=hermes"]),
        ("None", "qwen3", ["--reasoning-parser=qwen3"]),
    ],
)
def test_vllm_gets_no_argument_for_a_parser_that_is_off(tool: str, reasoning: str, arguments: list[str]) -> None:
    chosen = EngineStatus(tool_call_parser=tool, reasoning_parser=reasoning)
    assert build_arguments(chosen, None) == arguments
    assert build_arguments(chosen, "/a/template") == [*arguments, "--chat-template=/a/template"]
