"""The layers of real architectures that get an adapter, and how many parameters that trains."""

from pathlib import Path
from typing import Any

import pytest
from families.catalog import FAMILIES, build_tiny_config
from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_trainer.failures import StageError
from finetune_trainer.loading import choose_model_class, import_peft
from finetune_trainer.prepare.model_check import check_model_support, explain_layers
from finetune_trainer.prepare.shape import read_shape
from finetune_trainer.prepare.step_geometry import count_trainable
from finetune_trainer.train.models import build_peft_config
from finetune_trainer.train.target_modules import choose_target_modules, list_kinds

pytestmark = pytest.mark.filterwarnings("ignore")


def write_tiny(model_type: str, directory: Path) -> Path:
    """Write the configuration of a tiny model of a family."""
    build_tiny_config(model_type, FAMILIES[model_type].architecture).save_pretrained(directory)
    return directory


def build_spec(kind: str = "lora", method: str = "sft", **adapter: Any) -> FineTuneJobSpec:
    return FineTuneJobSpec.model_validate(
        {
            "model": {"uri": "pvc://models/x"},
            "dataset": {"train": {"uri": "pvc://data/x"}},
            "method": {method: {}},
            "adapter": {kind: {"rank": 4} | adapter},
        }
    )


def adapt(spec: FineTuneJobSpec, directory: Path) -> Any:
    """Return the tiny model of a configuration with a new adapter, without weights."""
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(directory)
    with torch.device("meta"):
        model = choose_model_class(config).from_config(config)
        return import_peft().get_peft_model(model, build_peft_config(spec, model))


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_estimate_counts_what_peft_trains(model_type: str, tmp_path: Path) -> None:
    spec, directory = build_spec(), write_tiny(model_type, tmp_path)
    shape = read_shape(directory, "pvc://models/x")
    model = adapt(spec, directory)
    assert model.get_nb_trainable_parameters()[0] == count_trainable(spec, shape) > 0
    chosen, _ = choose_target_modules(spec, shape.linear_layers, shape.architectures)
    adapted = {name.partition(".lora_A")[0] for name, _ in model.base_model.model.named_modules() if ".lora_A." in name}
    assert adapted == set(chosen)


@pytest.mark.parametrize("kind", ["dora", "rslora"])
def test_so_it_does_for_other_adapters(kind: str, tmp_path: Path) -> None:
    spec, directory = build_spec(kind, layers=[1]), write_tiny("qwen3", tmp_path)
    shape = read_shape(directory, "pvc://models/x")
    assert adapt(spec, directory).get_nb_trainable_parameters()[0] == count_trainable(spec, shape) > 0


@pytest.mark.parametrize(
    ("model_type", "kinds"),
    [
        ("qwen3_moe", ["k_proj", "o_proj", "q_proj", "v_proj"]),
        ("phi3", ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]),
        (
            "deepseek_v3",
            ["down_proj", "gate_proj", "kv_a_proj_with_mqa", "o_proj", "q_a_proj", "q_b_proj", "up_proj"],
        ),
        (
            "qwen3_next",
            [
                "down_proj",
                "gate_proj",
                "in_proj_ba",
                "in_proj_qkvz",
                "k_proj",
                "o_proj",
                "out_proj",
                "q_proj",
                "up_proj",
                "v_proj",
            ],
        ),
    ],
)
def test_layers_are_found_in_the_model(model_type: str, kinds: list[str], tmp_path: Path) -> None:
    shape = read_shape(write_tiny(model_type, tmp_path), "pvc://models/x")
    chosen, _ = choose_target_modules(build_spec(), shape.linear_layers, shape.architectures)
    assert list_kinds(chosen) == kinds


def test_dense_layers_and_shared_experts_of_a_mixture_get_adapters_and_its_experts_none(tmp_path: Path) -> None:
    """By default PEFT turns their names into those of the routed experts."""
    spec = build_spec(targetModules=["gate_proj", "up_proj", "down_proj"])
    model = adapt(spec, write_tiny("deepseek_v3", tmp_path))
    adapted = {name.partition(".lora_A")[0] for name, _ in model.base_model.model.named_modules() if ".lora_A." in name}
    assert adapted == {
        f"model.layers.{part}.{name}"
        for part in ("0.mlp", "1.mlp.shared_experts")
        for name in ("gate_proj", "up_proj", "down_proj")
    }
    assert not any("experts.lora" in name or "experts.base_layer" in name for name, _ in model.named_parameters())


def test_layers_without_an_adapter_are_named(tmp_path: Path) -> None:
    shape = read_shape(write_tiny("glm4", tmp_path / "glm4"), "pvc://models/x")
    assert explain_layers(build_spec(), shape) == (
        "these layers of pvc://models/x get no adapter: gate_up_proj, which cannot be adapted in Glm4ForCausalLM"
    )
    mixture = read_shape(write_tiny("qwen3_moe", tmp_path / "moe"), "pvc://models/x")
    assert "the routed experts, 46% of its parameters" in explain_layers(build_spec(), mixture)
    assert explain_layers(build_spec(), read_shape(write_tiny("gemma3", tmp_path / "gemma"), "pvc://models/x")) == ""


@pytest.mark.parametrize(
    ("model_type", "names", "reason", "message"),
    [
        (
            "phi3",
            ["q_proj"],
            Reason.MODEL_UNSUPPORTED,
            (
                "adapter.lora.targetModules contains q_proj, but pvc://models/x has no such linear layers:"
                " it has down_proj, gate_up_proj, o_proj, qkv_proj"
            ),
        ),
        (
            "glm4",
            ["gate_up_proj"],
            Reason.NOT_SERVABLE,
            "none of the layers of pvc://models/x that adapter.lora",
        ),
    ],
)
def test_layers_that_do_not_exist_or_are_not_served_are_refused(
    model_type: str, names: list[str], reason: Reason, message: str, tmp_path: Path
) -> None:
    shape = read_shape(write_tiny(model_type, tmp_path), "pvc://models/x")
    with pytest.raises(StageError) as refused:
        check_model_support(build_spec(targetModules=names), shape, 1)
    assert refused.value.reason is reason
    assert message in str(refused.value)
