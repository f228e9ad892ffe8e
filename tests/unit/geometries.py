"""The geometries of trainings of a model whose figures are published."""

from typing import Any

import numpy as np
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_trainer.prepare.shape import ModelShape
from finetune_trainer.prepare.step_geometry import SampleLengths, StepGeometry, build_geometry
from finetune_trainer.train.schedule import choose_hyperparameters

LLAMA_8B = ModelShape(
    parameters=8_030_261_248,
    active_parameters=7_504_924_672,
    linear_parameters=6_979_321_856,
    layers=32,
    parameters_per_layer=218_112_000,
    hidden_size=4096,
    embedding_rows=128_256,
    layer_width=83_968,
    max_width=14_336,
    linear_layers={
        f"model.layers.{layer}.{name}": sizes
        for layer in range(32)
        for name, sizes in {
            "self_attn.q_proj": (4096, 4096),
            "self_attn.k_proj": (4096, 1024),
            "self_attn.v_proj": (4096, 1024),
            "self_attn.o_proj": (4096, 4096),
            "mlp.gate_proj": (4096, 14_336),
            "mlp.up_proj": (4096, 14_336),
            "mlp.down_proj": (14_336, 4096),
        }.items()
    },
    expert_parameters=0,
    max_positions=8192,
    architectures=("LlamaForCausalLM",),
)


def lengths(tokens: int = 512, count: int = 1000) -> SampleLengths:
    return SampleLengths(np.full(count, tokens), np.full(count, tokens))


LENGTHS = lengths()


def spec(
    gpus: int = 1, method: Any = None, adapter: Any = None, budget: Any = None, compute: Any = None, **values: Any
) -> FineTuneJobSpec:
    return FineTuneJobSpec.model_validate(
        {
            "model": {"uri": "pvc://models/base"},
            "dataset": {"train": {"uri": "pvc://data/x"}},
            "method": method or {"sft": {"packing": False}},
            "adapter": adapter or {"lora": {"rank": 16}},
            "hyperparameters": {"epochs": 2} | values,
            "compute": {"resources": {"gpus": gpus}} | (compute or {}),
            "budget": budget,
        }
    )


def geometry_of(job: FineTuneJobSpec, data: SampleLengths = LENGTHS) -> StepGeometry:
    return build_geometry(job, choose_hyperparameters(job, data.longest), LLAMA_8B, data)
