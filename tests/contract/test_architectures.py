"""The checked-in list of architectures that vLLM serves without LoRA matches the installed vLLM."""

import subprocess
import sys
from pathlib import Path

from finetune_pod.architectures import WITHOUT_LORA


def test_the_list_matches_the_installed_vllm(tmp_path: Path) -> None:
    generated = tmp_path / "architectures.py"
    command = [sys.executable, "-m", "finetune_serving.architectures", str(generated)]
    subprocess.run(command, check=True, capture_output=True)
    checked_in = Path(__file__).parents[2] / "pod_common/src/finetune_pod/architectures.py"
    assert generated.read_text() == checked_in.read_text(), "run: make generate"
    assert "FalconForCausalLM" in WITHOUT_LORA
    assert not {"LlamaForCausalLM", "Qwen3ForCausalLM", "MistralForCausalLM"} & WITHOUT_LORA
