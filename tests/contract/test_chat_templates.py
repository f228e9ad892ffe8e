"""Real chat templates: training reads exactly what vLLM sends, which vLLM's own functions render."""

from pathlib import Path

import pytest
from bench.templates import find_trl_templates
from conversations import CONVERSATIONS
from finetune_pod.template import ChatTemplate, _Traits
from model.tiny import make_tiny_tokenizer
from served import ServedError, ServedPrompts
from template_check import TemplateCheck

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
"""What vLLM imports uses deprecated parts of torch."""
TEMPLATES = sorted(path for path in find_trl_templates().glob("*.jinja") if not path.stem.endswith("_training"))
MAX_NEEDLESS = 2
"""Conversations that a template may refuse although vLLM serves them, for example two answers in a row."""


def test_there_are_templates_of_all_families() -> None:
    names = {path.stem for path in TEMPLATES}
    assert {"qwen3", "llama3_1", "gemma3", "glm4moe", "gptoss", "deepseekv3", "phi3", "cohere2"} <= names


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_what_is_learned_follows_the_prompt_that_vllm_sends(path: Path, tmp_path: Path) -> None:
    check = TemplateCheck(path.read_text(), tmp_path)
    results = {name: check.run(example) for name, example in CONVERSATIONS.items()}
    wrong = {name: result for name, result in results.items() if result.outcome in ("silently_wrong", "crashes")}
    assert not wrong
    needless = {name: result for name, result in results.items() if result.outcome == "refused_needlessly"}
    assert len(needless) <= MAX_NEEDLESS, needless
    assert results["one turn"].outcome == "right"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_contents_have_the_form_that_vllm_detects(path: Path) -> None:
    from vllm.renderers.hf import _detect_content_format

    source = path.read_text()
    expected = _detect_content_format(source, default="string") == "openai"
    assert _Traits(source).iterates_content is expected


@pytest.mark.parametrize("change", ["prompt", "answer"])
def test_the_check_notices_another_prompt_and_another_answer(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = TemplateCheck((find_trl_templates() / "qwen2_5.jinja").read_text(), tmp_path)
    render = ChatTemplate.render

    def render_changed(self: ChatTemplate, *arguments: object, **options: object) -> str:
        text = render(self, *arguments, **options)  # type: ignore[arg-type]
        return (
            text.replace("<|im_start|>user", "<|im_start|>User") if change == "prompt" else text.replace("nine", "ten")
        )

    monkeypatch.setattr(ChatTemplate, "render", render_changed)
    outcome = check.run(CONVERSATIONS["one turn"]).outcome
    assert outcome == ("silently_wrong" if change == "prompt" else "refused_needlessly")


def test_what_vllm_refuses_is_an_error_of_the_server(tmp_path: Path) -> None:
    check = TemplateCheck((find_trl_templates() / "gemma.jinja").read_text(), tmp_path)
    with pytest.raises(ServedError, match="System role not supported"):
        check.served.render(CONVERSATIONS["system"]["messages"], None)
    assert check.run(CONVERSATIONS["system"]).outcome == "refused_as_served"


@pytest.mark.parametrize(
    "source", ["{{ messages.append(1) }}", "{{ messages.__class__.__mro__ }}", "{% include 'config.json' %}"]
)
def test_vllm_renders_in_an_immutable_sandbox_without_files(source: str, tmp_path: Path) -> None:
    """As training and evaluation do: tests/bad_inputs/data/templates.yaml."""
    served = ServedPrompts(make_tiny_tokenizer(tmp_path), source)
    with pytest.raises(ServedError, match="unsafe|no loader"):
        served.render([{"role": "user", "content": "hello"}], None)
