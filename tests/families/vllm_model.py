"""Builds models in vLLM without weights, to look at their layers."""

import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any


def build_vllm_model(directory: Path) -> Any:
    """Return vLLM's model for a config.json, on torch's `meta` device."""
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    _initialize_distributed()
    arguments = EngineArgs(
        model=str(directory),
        skip_tokenizer_init=True,
        load_format="dummy",
        enforce_eager=True,
        dtype="float32",
        max_model_len=128,
        enable_lora=True,
        language_model_only=True,
    )
    config = arguments.create_engine_config()
    with set_current_vllm_config(config), set_default_torch_dtype(torch.float32), torch.device("meta"):
        return initialize_model(vllm_config=config)


def list_loadable_layers(model: Any, layers: Iterable[str]) -> set[str]:
    """Return those of some layers of transformers' model whose adapters vLLM's model applies, by their full names."""
    from vllm.config.lora import LoRAConfig
    from vllm.lora.utils import _all_lora_classes, process_packed_modules_mapping
    from vllm.model_executor.layers.linear import LinearBase

    packed, settings = process_packed_modules_mapping(model), LoRAConfig(max_lora_rank=8)

    def is_adaptable(layer: Any, parts: list[str]) -> bool:
        options = {"lora_config": settings, "packed_modules_list": parts, "model_config": model.config}
        return any(kind.can_replace_layer(source_layer=layer, **options) for kind in _all_lora_classes)

    loadable = set()
    for name, module in model.named_modules():
        parent, _, last = name.rpartition(".")
        if isinstance(module, LinearBase) and is_adaptable(module, packed.get(last, [])):
            loadable |= {f"{parent}.{part}" for part in packed.get(last, [last])}
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    rename = mapper.get_rename_mapper()._map_name if mapper else str
    return {name for name in layers if rename(name) in loadable}


@cache
def _initialize_distributed() -> None:
    """Make this process the only one of a group, which vLLM's layers need."""
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.distributed import init_distributed_environment, initialize_model_parallel

    group = Path(tempfile.mkdtemp()) / "group"
    with set_current_vllm_config(VllmConfig()):
        init_distributed_environment(1, 0, f"file://{group}", 0, "gloo")
        initialize_model_parallel(1, 1)
