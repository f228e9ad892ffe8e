"""The checked-in architectures and layers that vLLM adapts match the installed vLLM and transformers."""

import subprocess
import sys
from pathlib import Path

from finetune_pod.architectures import LORA_LAYERS, NOT_ADAPTED, WITH_IMAGES, WITHOUT_LORA


def test_the_list_matches_the_installed_vllm(tmp_path: Path) -> None:
    generated = tmp_path / "architectures.py"
    command = [sys.executable, "-m", "families.architectures", str(generated)]
    subprocess.run(command, check=True, capture_output=True)
    root = Path(__file__).parents[2]
    ruff = str(Path(sys.executable).with_name("ruff"))
    subprocess.run([ruff, "format", "--quiet", "--config", str(root / "pyproject.toml"), str(generated)], check=True)
    checked_in = root / "pod_common/src/finetune_pod/architectures.py"
    assert generated.read_text() == checked_in.read_text(), "run: make generate"
    assert "FalconForCausalLM" in WITHOUT_LORA
    assert not {"LlamaForCausalLM", "Qwen3ForCausalLM", "MistralForCausalLM"} & WITHOUT_LORA
    assert {"Gemma3ForConditionalGeneration", "Qwen3_5ForConditionalGeneration"} <= WITH_IMAGES
    assert {"q_proj", "qkv_proj", "gate_up_proj", "kv_a_proj_with_mqa", "in_proj_qkvz", "in_proj"} <= LORA_LAYERS
    assert not {"lm_head", "gate", "router", "shared_expert_gate", "kv_b_proj"} & LORA_LAYERS
    assert "gate_up_proj" in NOT_ADAPTED["Glm4ForCausalLM"]
