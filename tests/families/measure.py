"""Measures one family: `python -m families.measure MODEL_TYPE DIRECTORY` prints a line of JSON.

A tiny model with random weights is prepared and trained by our stages, served by our evaluation's vLLM, and compared
with transformers and PEFT.
"""

import json
import sys
from pathlib import Path
from typing import Any

from finetune_serving.vllm_config import ServerConfig, choose_cpu_dtype, read_config, set_environment

set_environment(gpu=False)

from bench.templates import find_trl_templates  # noqa: E402
from families.catalog import FAMILIES, Family, build_tiny_config  # noqa: E402
from finetune_api.modelserver import EngineStatus  # noqa: E402
from finetune_serving.evaluation.engine import ModelCandidate, VllmEngine  # noqa: E402
from finetune_serving.evaluation.questions import Question, Sequence  # noqa: E402
from finetune_serving.gateway.launch import choose  # noqa: E402
from finetune_trainer.loading import choose_model_class, import_peft  # noqa: E402
from finetune_trainer.prepare.packing_check import measure_leak  # noqa: E402
from finetune_trainer.prepare.tiny_model import find_text_values, set_sizes  # noqa: E402
from model.tiny import make_tiny_tokenizer  # noqa: E402
from template_check import make_template_tokenizer  # noqa: E402
from workspace import Workspace, make_price_chats, make_workspace  # noqa: E402

_SIZES = {
    "vocab_size": 512,
    "vocab_size_per_layer_input": 512,
    "hidden_size": 256,
    "head_dim": 64,
    "global_head_dim": 64,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 64,
    "v_head_dim": 64,
    "kv_lora_rank": 512,
    "q_lora_rank": 64,
    "rotary_dim": 64,
    "block_dim": 256,
    "conv_dim": 256,
    "conv_dim_out": 256,
    "mamba_d_ssm": 256,
    "mamba_d_head": 64,
    "mamba_head_dim": 64,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
}
"""vLLM's attention on CPUs needs heads of at least 64, latent attention the sizes of the published models."""
_PROMPTS = [list(range(20 + shift, 60 + shift, 1 + shift % 3)) for shift in range(4)]
"""Token ids of the sequences whose likelihoods are compared, and which are continued."""
_NEW_TOKENS = 8
_RANK = 8
_RANDOM_SCALE = 0.05
"""Standard deviation of the adapter's random weights: each kind of layer changes the likelihoods by tenths of nats.
Four times as large for layers of few outputs, such as the gates of a delta net, which change little else."""


def build_model(family: Family, directory: Path) -> Any:
    """Write a tiny model of a family with random weights and a tokenizer, and return it in float32."""
    import torch

    tokenizer = make_tiny_tokenizer(directory)
    config = build_tiny_config(family.model_type, family.architecture)
    values = config.to_dict()
    text = find_text_values(config, values)
    for part in (text, *(text.get("per_layer_config") or {}).values()):
        set_sizes(part, _SIZES)
    text |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    if values.get("vision_config"):
        set_sizes(values["vision_config"], {"out_hidden_size": text["hidden_size"]})
    torch.manual_seed(0)
    tiny = type(config).from_dict(values)
    model = choose_model_class(tiny).from_config(tiny).float().eval()
    model.save_pretrained(directory)
    return model


def train(base: Path, root: Path) -> tuple[Workspace, dict[str, Any]]:
    """Prepare and train a job with the default adapter; return it, and the report of its preparation."""
    values = {"epochs": 1, "learningRate": 0.005, "maxLength": 128}
    workspace = make_workspace(root, base, make_price_chats(20), hyperparameters=values)
    prepared: dict[str, Any] = {}
    for arguments in (("prepare",), ("train", "--attempt=1")):
        status, report = workspace.run(*arguments)
        if status or report is None:
            raise RuntimeError(workspace.log.strip().splitlines()[-1])
        prepared = prepared or report.to_dict()
    return workspace, prepared


def randomize(adapter: Path) -> int:
    """Replace the weights of an adapter by random ones, and return their number."""
    import torch
    from safetensors.torch import load_file, save_file

    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    torch.manual_seed(1)
    scales = {name: _RANDOM_SCALE * (4 if value.shape[0] < _RANK else 1) for name, value in weights.items()}
    save_file({name: torch.randn_like(value) * scales[name] for name, value in sorted(weights.items())}, path)
    return sum(value.numel() for value in weights.values())


def compute_nlls(model: Any) -> list[float]:
    """Return the negative log-likelihoods of the sequences by transformers, in nats."""
    import torch

    nlls = []
    for ids in _PROMPTS:
        tokens = torch.tensor([ids])
        with torch.no_grad():
            logprobs = torch.log_softmax(model(input_ids=tokens).logits[0, :-1].float(), -1)
        nlls.append(-float(logprobs.gather(1, tokens[0, 1:, None]).sum()))
    return nlls


def generate(model: Any, tokenizer: Any) -> list[str]:
    """Return the greedy continuations of the sequences by transformers."""
    import torch

    options = {"max_new_tokens": _NEW_TOKENS, "do_sample": False, "use_cache": False}
    rows = [model.generate(torch.tensor([ids]), **options)[0, len(ids) :] for ids in _PROMPTS]
    return [tokenizer.decode(row.tolist()) for row in rows]


def measure_effects(model: Any, kinds: list[str]) -> dict[str, float]:
    """Return for each kind of layer by how many nats the likelihoods change without its adapters."""
    whole = compute_nlls(model)
    effects = {}
    for kind in kinds:
        parameters = [value for name, value in model.named_parameters() if f".{kind}.lora_B" in name]
        saved = [value.detach().clone() for value in parameters]
        for value in parameters:
            value.data.zero_()
        effects[kind] = compare(whole, compute_nlls(model))
        for value, before in zip(parameters, saved, strict=True):
            value.data.copy_(before)
    return effects


def compare(first: list[float], second: list[float]) -> float:
    """Return the largest difference."""
    return max(abs(a - b) for a, b in zip(first, second, strict=True))


def choose_parsers(template: str, base: Path, directory: Path) -> EngineStatus:
    """Return the parsers that a server of a model chooses for a chat template of TRL."""
    source = (find_trl_templates() / f"{template}.jinja").read_text()
    # Llama's parser needs a token that not all of its templates mention.
    _, stop_tokens = make_template_tokenizer(directory, source, "<|python_tag|>")
    config = read_config(str(base), None) | {"eos_token_id": sorted(stop_tokens)}
    (directory / "config.json").write_text(json.dumps(config))
    return choose(ServerConfig("", str(directory), None, routes="", adapters="", root="", max_rank=_RANK))


def measure(family: Family, directory: Path) -> dict[str, Any]:
    """Return the figures of a family; `error` says at which stage it ended, if it did."""
    base = directory / "base"
    base.mkdir(parents=True)
    figures: dict[str, Any] = {"family": family.model_type}
    try:
        model = build_model(family, base)
        if family.template:
            parsers = choose_parsers(family.template, base, directory / "template")
            figures["parsers"] = [parsers.tool_call_parser, parsers.reasoning_parser]
        figures["leak"] = measure_leak(base)
        workspace, prepared = train(base, directory / "work")
        figures["layers"] = prepared["hyperparameters"]["targetModules"]
        figures["estimated"] = prepared["estimate"]["trainableParameters"]
        adapter = workspace.directory.adapter(1)
        figures["trained"] = randomize(adapter)
        figures |= _compare_with_vllm(model, base, adapter, figures["layers"])
    except Exception as error:  # noqa: BLE001 - whatever it is, the table says so
        figures["error"] = f"{type(error).__name__}: {error}"
    return figures


def _compare_with_vllm(model: Any, base: Path, adapter: Path, kinds: list[str]) -> dict[str, Any]:
    figures: dict[str, Any] = {"dtype": choose_cpu_dtype(read_config(str(base), None))}
    from transformers import AutoTokenizer

    # vLLM changes classes of transformers that it serves itself, so transformers is first.
    tuned = import_peft().PeftModel.from_pretrained(model, adapter).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    with tuned.disable_adapter():
        expected = {"base": (compute_nlls(tuned), generate(tuned, tokenizer))}
    expected["adapter"] = compute_nlls(tuned), generate(tuned, tokenizer)
    figures["effects"] = measure_effects(tuned, kinds)
    engine = VllmEngine(str(base), str(base), None, _RANK, gpu=False)
    questions = [Question({}, (Sequence(ids, [True] * len(ids)),), prompt=tuple(ids)) for ids in _PROMPTS]
    for name, path in (("base", None), ("adapter", adapter)):
        outputs = list(engine.run(questions, _NEW_TOKENS, ModelCandidate(str(base), path, _RANK)))
        nlls, answers = expected[name]
        figures[name] = compare(nlls, [output.nll for output in outputs])
        figures[f"{name}_answers"] = sum(
            ours.startswith(output.raw_answer) for ours, output in zip(answers, outputs, strict=True)
        ) / len(answers)
    return figures


if __name__ == "__main__":
    print(json.dumps(measure(FAMILIES[sys.argv[1]], Path(sys.argv[2]))))
