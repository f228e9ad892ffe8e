"""The checked-in list of what vLLM serves without adapters, against the vLLM that is installed."""

import subprocess
import sys
from pathlib import Path

from finetune_pod.architectures import WITHOUT_LORA


def test_the_list_is_what_the_installed_vllm_says(tmp_path: Path) -> None:
    written = tmp_path / "architectures.py"
    command = [sys.executable, "-m", "finetune_serving.architectures", str(written)]
    subprocess.run(command, check=True, capture_output=True)
    checked_in = Path(__file__).parents[2] / "pod_common/src/finetune_pod/architectures.py"
    assert written.read_text() == checked_in.read_text(), "run: make generate"
    assert "FalconForCausalLM" in WITHOUT_LORA
    assert not {"LlamaForCausalLM", "Qwen3ForCausalLM", "MistralForCausalLM"} & WITHOUT_LORA
