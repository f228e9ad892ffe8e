"""What is known of a model before the data is read."""

from dataclasses import replace

from finetune_trainer.prepare.model_check import explain_renderer
from unit.geometries import LLAMA_8B


def test_only_gpt_oss_is_rendered_without_its_chat_template() -> None:
    assert explain_renderer(LLAMA_8B) == ""
    assert "Harmony" in explain_renderer(replace(LLAMA_8B, architectures=("GptOssForCausalLM",)))
