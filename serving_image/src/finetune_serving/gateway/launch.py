"""Starts vLLM with parsers that suit the chat template: `python -m finetune_serving.gateway.launch serve ARGUMENTS`.

The choice needs vLLM's code, whose import takes most of a start. So it is made in the process that becomes the server.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from finetune_api.contract.exit_codes import ExitCode
from finetune_api.contract.reports import write_failure
from finetune_api.modelserver import AUTO, NO_PARSER, EngineStatus
from finetune_pod.chat import ChatEncoder

from finetune_serving.answer_reader import AnswerReader, ReadAnswer
from finetune_serving.parser_choice import Probe, Read, choose_parsers, write_probes
from finetune_serving.stop_tokens import read_stop_tokens
from finetune_serving.vllm_config import TOKENIZER_MODE, ServerConfig, read_config, read_server_config

_HARMONY = {"tool_call_parser": "openai", "reasoning_parser": "openai_gptoss"}
"""The parsers for gpt-oss, which vLLM renders and reads by code of its own."""


class ParserError(Exception):
    """A parser that vLLM does not have, or cannot use with the model. The message says which ones it has."""


def main() -> None:
    """Choose the parsers, and run `vllm` with this process's arguments and those for the parsers."""
    config = read_server_config()
    try:
        chosen = choose(config)
    except ParserError as error:
        sys.stderr.write(f"{error}\n")
        write_failure(str(error), config.termination_log)
        sys.exit(ExitCode.BAD_CONFIG)
    print(f"parsers: {chosen.to_dict()}", flush=True)  # noqa: T201 - the server's log
    os.environ |= replace(
        config,
        tool_call_parser=chosen.tool_call_parser,
        reasoning_parser=chosen.reasoning_parser,
        parser_message=chosen.message,
    ).to_env()
    sys.argv += build_arguments(chosen, config.template_file)
    from vllm.entrypoints.cli.main import main as run_vllm

    run_vllm()


def build_arguments(chosen: EngineStatus, template_file: str | None) -> list[str]:
    """Return the arguments of `vllm serve` for the chosen parsers, and for a chat template that is not the model's."""
    tool, reasoning = chosen.tool_call_parser, chosen.reasoning_parser
    return [
        *(["--enable-auto-tool-choice", f"--tool-call-parser={tool}"] if tool != NO_PARSER else []),
        *([f"--reasoning-parser={reasoning}"] if reasoning != NO_PARSER else []),
        *([f"--chat-template={template_file}"] if template_file else []),
    ]


def choose(config: ServerConfig) -> EngineStatus:
    """Return the parsers for the server's model.

    Raises:
        ParserError: a parser that is requested by name cannot be used.
    """
    from vllm.reasoning import ReasoningParserManager
    from vllm.tokenizers import get_tokenizer
    from vllm.tool_parsers import ToolParserManager

    requested = {"tool_call_parser": config.tool_call_parser, "reasoning_parser": config.reasoning_parser}
    _check_name("engine.toolCallParser", config.tool_call_parser, ToolParserManager.list_registered())
    _check_name("engine.reasoningParser", config.reasoning_parser, ReasoningParserManager.list_registered())
    if read_config(config.model, config.revision).get("model_type") == "gpt_oss":
        return EngineStatus(**{name: _HARMONY[name] if given == AUTO else given for name, given in requested.items()})
    tokenizer: Any = get_tokenizer(config.model, tokenizer_mode=TOKENIZER_MODE, revision=config.revision)
    if config.template_file:
        tokenizer.chat_template = Path(config.template_file).read_text(encoding="utf-8")
    stop_tokens = read_stop_tokens(config.model, config.revision, tokenizer)
    with _silenced():
        read = build_read(tokenizer, stop_tokens)
        chosen = choose_parsers(write_probes(ChatEncoder(tokenizer, stop_tokens)), **requested, read=read)
    try:
        AnswerReader(tokenizer, stop_tokens, chosen.tool_call_parser, chosen.reasoning_parser)
    except Exception as error:
        raise ParserError(
            f"engine.toolCallParser {chosen.tool_call_parser} and engine.reasoningParser {chosen.reasoning_parser}"
            f" cannot be used with this model: {error}"
        ) from error
    return chosen


def build_read(tokenizer: Any, stop_tokens: set[int]) -> Read:
    """Return the function that reads a probe with a pair of vLLM's parsers."""

    @cache
    def open_reader(tool: str, reasoning: str) -> AnswerReader:
        return AnswerReader(tokenizer, stop_tokens, tool, reasoning)

    def read(probe: Probe, tool: str, reasoning: str, *, stream: bool) -> ReadAnswer | None:
        try:
            return open_reader(tool, reasoning).read(probe.answer, probe.prompt, probe.tools, stream=stream)
        except Exception:  # noqa: BLE001 - a parser may fail in any way on the format of another model
            return None

    return read


def _check_name(field: str, name: str, known: list[str]) -> None:
    if name not in (AUTO, NO_PARSER, *known):
        raise ParserError(
            f"{field}: the vLLM in this image has no parser {name!r}: use {AUTO}, {NO_PARSER} or one of"
            f" {', '.join(sorted(known))}"
        )


@contextmanager
def _silenced() -> Iterator[None]:
    """Log nothing: vLLM logs a traceback for each parser that does not suit a model."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


if __name__ == "__main__":
    main()
