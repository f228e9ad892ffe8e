"""The arguments of vLLM, and the chat template with which a pod may start."""

from dataclasses import replace
from pathlib import Path

import pytest
from finetune_api.contract.commands import Serve
from finetune_api.modelserver import EngineSettings
from finetune_pod.template_file import TemplateFile, TemplateFileError
from finetune_serving.gateway.serve import build_arguments, check_template

CONFIG = {"architectures": ["LlamaForCausalLM"]}


def test_engine_settings_become_arguments_of_vllm() -> None:
    command = Serve("pvc://m/b", max_rank=16, max_adapters=2, engine=EngineSettings())
    arguments = build_arguments(command, "/m", CONFIG, gpu=False)
    assert {"--dtype=float32", "--enable-prefix-caching", "--tensor-parallel-size=1"} < set(arguments)
    assert {"--tokenizer-mode=hf", "--max-loras=2", "--max-cpu-loras=6", "--max-lora-rank=16"} < set(arguments)
    assert {"--language-model-only", "q_proj", "gate_up_proj", "in_proj"} < set(arguments)
    assert not {"lm_head", "gate"} & set(arguments)
    assert not [argument for argument in arguments if "quantization" in argument or "max-num-seqs" in argument]
    engine = EngineSettings(
        max_model_len=512,
        quantization="fp8",
        kv_cache_dtype="fp8",
        enable_prefix_caching=False,
        tensor_parallel_size=2,
        gpu_memory_utilization=0.8,
        max_num_seqs=32,
        dtype="bfloat16",
    )
    assert set(build_arguments(replace(command, engine=engine), "/m", CONFIG, gpu=True)) > {
        "--max-model-len=512",
        "--quantization=fp8",
        "--kv-cache-dtype=fp8",
        "--no-enable-prefix-caching",
        "--tensor-parallel-size=2",
        "--gpu-memory-utilization=0.8",
        "--max-num-seqs=32",
        "--dtype=bfloat16",
    }


def test_a_pod_starts_only_with_the_template_of_its_server(tmp_path: Path) -> None:
    template = TemplateFile("configmap://templates/chat.jinja", "{{ messages }}")
    routes = tmp_path / "routes.json"
    check_template(template, routes)  # Nothing is known yet.
    for text in ("damaged", '{"routes": []}', f'{{"routes": [], "chatTemplate": "{template.digest}"}}'):
        routes.write_text(text)
        check_template(template, routes)
    with pytest.raises(TemplateFileError, match=f"^{template.uri} was changed since this server started with it"):
        check_template(replace(template, text="{{ messages }}."), routes)
