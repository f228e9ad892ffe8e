"""Real chat templates: the chosen parsers read what the template writes, and docs/serving.md names them."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest
from bench.templates import find_trl_templates
from finetune_api.modelserver import AUTO, NO_PARSER
from finetune_pod.chat import Answer, ChatEncoder
from finetune_pod.template import TemplateError
from finetune_pod.toolcalls import Call, learn_format
from finetune_pod.turns import read_content
from finetune_serving.answer_reader import AnswerReader, ReadAnswer
from finetune_serving.gateway.launch import build_read
from finetune_serving.parser_choice import choose_parsers, write_probes
from template_check import make_template_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
"""What vLLM imports uses deprecated parts of torch."""
DOCS = Path(__file__).parents[2] / "docs" / "serving.md"
TEMPLATES = sorted(path.stem for path in find_trl_templates().glob("*.jinja") if not path.stem.endswith("_training"))
TEMPLATES.remove("gptoss")
"""vLLM reads gpt-oss by code of its own, see `launch`."""
FAMILIES = {
    "Qwen 2.5, Qwen 3 Instruct 2507, Qwen 3 VL": ("qwen2_5", "qwen3_instruct_2507", "qwen3_vl"),
    "Qwen 3": ("qwen3",),
    "Qwen 3.5, 3.6 and 3.8, Nemotron 3": ("qwen3_5_think", "qwen3_6", "qwen3_8", "nemotron_3_*"),
    "Qwen 3.5 that thinks only on request": ("qwen3_5_nothink",),
    "Llama 3.1 and 3.2": ("llama3_1", "llama3_2"),
    "Gemma 4": ("gemma4", "gemma4_v3", "gemma4_v4", "gemma4_v5"),
    "Gemma 4 at its release, DiffusionGemma": ("gemma4_v2", "diffusion_gemma"),
    "GLM 4.5": ("glm4moe",),
    "LFM 2 and 2.5": ("lfm2_v2", "lfm2_2_5*"),
    "DeepSeek V3 and R1": ("deepseekv3",),
    "DeepSeek R1 distilled": ("deepseek_r1_distill",),
    "Muse Glimmer": ("muse_glimmer",),
    "Gemma 1 to 3, Phi 3 and 3.5, Llama 3, Aya, the first LFM 2, Qwen 2.5 VL, Idefics 3, LLaVA, SmolVLM": (
        "gemma", "gemma3", "phi3*", "llama3", "cohere*", "lfm2", "qwen2_5_vl", "idefics3", "llava_next", "smolvlm",
    ),
}  # fmt: skip
"""The rows of the table in docs/serving.md, and the templates of each."""


CALLS = (
    Call(
        "weigh",
        {"name": "Čapek & 你好", "sizes": [1, 2], "options": {"note": 'ring "twice" — <b>now</b>', "late": False}},
    ),
    Call("ping", {"name": "x"}),
)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": call.name,
            "description": call.name,
            "parameters": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "description": "Name"},
                    "sizes": {"type": "array", "items": {"type": "integer"}, "description": "Sizes"},
                    "options": {
                        "type": "object",
                        "properties": {"note": {"type": "string"}, "late": {"type": "boolean"}},
                        "description": "Options",
                    },
                },
            },
        },
    }
    for call in CALLS
]
QUESTION = {"role": "user", "content": "Is it here?"}


class Model:
    """A tiny tokenizer with a chat template."""

    def __init__(self, source: str, directory: Path) -> None:
        # Llama's parser needs a token that not all of its templates mention.
        self.tokenizer, self.stop_tokens = make_template_tokenizer(directory, source, "<|python_tag|>")
        self.encoder = ChatEncoder(self.tokenizer, self.stop_tokens)
        self.probes = write_probes(self.encoder)
        self.chosen = choose_parsers(self.probes, AUTO, AUTO, build_read(self.tokenizer, self.stop_tokens))
        self._reader = AnswerReader(
            self.tokenizer, self.stop_tokens, self.chosen.tool_call_parser, self.chosen.reasoning_parser
        )

    def encode(self, calls: tuple[Call, ...]) -> Answer:
        """Return an answer with tool calls."""
        functions = [{"name": call.name, "arguments": json.dumps(call.arguments)} for call in calls]
        listed = [
            {"id": f"call{number:05}", "type": "function", "function": function}
            for number, function in enumerate(functions)
        ]
        message = {"role": "assistant", "content": "", "tool_calls": listed}
        return self.encoder.encode_answer([QUESTION], message, TOOLS)

    def read(self, answer: Answer, *, stream: bool) -> ReadAnswer:
        """Return what a client gets of an answer."""
        return self._reader.read(answer, [QUESTION], TOOLS, stream=stream)


@pytest.fixture(scope="module")
def open_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    """Return a function that opens a template of TRL by its name."""
    return cache(
        lambda name: Model((find_trl_templates() / f"{name}.jinja").read_text(), tmp_path_factory.mktemp(name))
    )


def find_families(name: str) -> list[str]:
    return [family for family, patterns in FAMILIES.items() if any(fnmatch(name, pattern) for pattern in patterns)]


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_parsers_of_the_docs_are_chosen(name: str, open_model: Callable[[str], Model]) -> None:
    rows = re.findall(r"^\| ([^|]+) \| `(\w+)` \| `(\w+)` \|$", DOCS.read_text(), re.MULTILINE)
    listed = {models: (tool, reasoning) for models, tool, reasoning in rows}
    assert set(FAMILIES) < set(listed)
    (family,) = find_families(name)
    chosen = open_model(name).chosen
    assert (chosen.tool_call_parser, chosen.reasoning_parser) == listed[family]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", TEMPLATES)
def test_calls_with_nested_and_unicode_arguments_come_back(
    name: str, stream: bool, open_model: Callable[[str], Model]
) -> None:
    model = open_model(name)
    read = []
    for calls in (CALLS[:1], CALLS[1:], CALLS) if model.chosen.tool_call_parser != NO_PARSER else ():
        with suppress(TemplateError):  # Llama's template writes a single call.
            read.append((model.read(model.encode(calls), stream=stream).calls, calls))
    assert [got for got, _ in read] == [calls for _, calls in read]
    assert (len(read) >= 2) == (model.chosen.tool_call_parser != NO_PARSER)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_evaluation_reads_answers_as_the_server_does(name: str, open_model: Callable[[str], Model]) -> None:
    model = open_model(name)
    tool_format = learn_format(model.encoder.template.render)
    for probe in model.probes:
        ids = probe.answer.ids
        evaluated = read_content(model.tokenizer, ids[:-1] if probe.answer.stops else ids)
        if model.chosen.reasoning_parser != NO_PARSER and not probe.expected.calls:
            assert evaluated == probe.expected.content
        if model.chosen.tool_call_parser != NO_PARSER and tool_format:
            assert tuple(tool_format.parse(model.tokenizer.decode(ids)) or ()) == probe.expected.calls


CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content or '' }}"
    "{% set calls = message.tool_calls or [] %}{% if calls %}CALLS{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_JSON = "{{ f.arguments | tojson }}"
_NAMED = '{"name": "{{ f.name }}", "arguments": ' + _JSON + "}"
_PYTHON = (
    "{{ f.name }}({% for k, v in f.arguments.items() %}{{ k }}={{ v if v is boolean else v | tojson }}"
    "{% if not loop.last %}, {% endif %}{% endfor %})"
)
_TEXT_OR_JSON = "{{ v if v is string else v | tojson }}"


def each(text: str, separator: str = "") -> str:
    """Return the part of a template that writes all calls; `f` is the function of one."""
    between = "{% if not loop.last %}{{ '" + separator + "' }}{% endif %}"
    return "{% for call in calls %}{% set f = call.function %}" + text + between + "{% endfor %}"


DSML = (
    "<｜DSML｜function_calls>\n"
    + each(
        '<｜DSML｜invoke name="{{ f.name }}">\n{% for k, v in f.arguments.items() %}'
        "<｜DSML｜parameter name=\"{{ k }}\" string=\"{{ 'true' if v is string else 'false' }}\">"
        + _TEXT_OR_JSON
        + "</｜DSML｜parameter>\n{% endfor %}</｜DSML｜invoke>\n"
    )
    + "</｜DSML｜function_calls>"
)
FORMATS = {
    "Mistral Nemo and before": ("mistral", "[TOOL_CALLS][" + each(_NAMED, ", ") + "]"),
    "Ministral 3, Devstral": ("mistral", each("[TOOL_CALLS]{{ f.name }}[ARGS]" + _JSON)),
    "Granite 3.0": ("granite", "<|tool_call|>[" + each(_NAMED, ", ") + "]"),
    "Granite 3.1": ("granite", "<tool_call>[" + each(_NAMED, ", ") + "]"),
    "Apertus": (
        "apertus",
        "<|tools_prefix|>[" + each('{"{{ f.name }}": ' + _JSON + "}", ", ") + "]<|tools_suffix|>",
    ),
    "Kimi K2": (
        "kimi_k2",
        "<|tool_calls_section_begin|>"
        + each(
            "<|tool_call_begin|>functions.{{ f.name }}:{{ loop.index0 }}<|tool_call_argument_begin|>"
            + _JSON
            + "<|tool_call_end|>"
        )
        + "<|tool_calls_section_end|>",
    ),
    "DeepSeek V3.1": (
        "deepseek_v31",
        "<｜tool▁calls▁begin｜>"
        + each("<｜tool▁call▁begin｜>{{ f.name }}<｜tool▁sep｜>" + _JSON + "<｜tool▁call▁end｜>")
        + "<｜tool▁calls▁end｜>",
    ),
    "DeepSeek V3.2": ("deepseek_v32", DSML),
    "MiniMax M2": (
        "minimax_m2",
        "<minimax:tool_call>\n"
        + each(
            '<invoke name="{{ f.name }}">\n{% for k, v in f.arguments.items() %}<parameter name="{{ k }}">'
            + _TEXT_OR_JSON
            + "</parameter>\n{% endfor %}</invoke>\n"
        )
        + "</minimax:tool_call>",
    ),
    "LongCat": ("longcat", each("<longcat_tool_call>\n" + _NAMED + "\n</longcat_tool_call>")),
    "a list of Python calls": ("pythonic", "[" + each(_PYTHON, ", ") + "]"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_formats_of_other_models_are_read(name: str, tmp_path: Path) -> None:
    parser, calls = FORMATS[name]
    model = Model(CHATML.replace("CALLS", calls), tmp_path)
    assert (model.chosen.tool_call_parser, model.chosen.reasoning_parser) == (parser, NO_PARSER)
    assert f"| {name} | `{parser}` |" in DOCS.read_text()
