"""Compares the memory estimate with what torch allocates in steps of TRL; tests which models prepare refuses."""

import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from finetune_api.conditions import Reason
from finetune_api.contract.exit_codes import ExitCode
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_trainer.failures import StageError
from finetune_trainer.prepare.estimate import estimate_memory
from finetune_trainer.prepare.shape import read_shape
from finetune_trainer.prepare.stage import prepare
from finetune_trainer.prepare.step_geometry import SampleLengths, build_geometry
from finetune_trainer.train.schedule import choose_hyperparameters
from peft import LoraConfig
from safetensors import safe_open
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, TrainerCallback
from trl import SFTConfig, SFTTrainer
from workspace import Workspace, make_price_chats, make_workspace

ROW, ROWS, RANK = 256, 4, 16
PRODUCTS = {torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default}
"""Matrix products: they take nearly all of the time, and the memory does not depend on their values."""


class Allocations(TorchDispatchMode):
    """Counts the bytes of all live tensors that torch's operations create; replaces matrix products with zeros."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live: dict[int, int] = {}

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._live:
            self._live[key] = storage.nbytes()
            self.peak = max(self.peak, sum(self._live.values()))
            weakref.finalize(storage, self._live.pop, key, None)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in PRODUCTS:
            *_, left, right = args
            out = left.new_zeros((*left.shape[:-1], right.shape[-1]))
        else:
            out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return out


class AllocationCallback(TrainerCallback):  # type: ignore[misc]
    """Counts from the first step to the last."""

    def __init__(self) -> None:
        self.allocations = Allocations()

    def on_train_begin(self, *_: Any, model: Any = None, **__: Any) -> None:
        for weight in model.parameters():
            self.allocations.add(weight)
        self.allocations.__enter__()  # type: ignore[no-untyped-call]

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.allocations.__exit__(None, None, None)  # type: ignore[no-untyped-call]


def measure_peak(directory: Path, tiny: Path, *, packing: bool) -> int:
    """Return the peak in bytes over two steps of TRL with the settings of a GPU: bfloat16, gradient checkpointing."""
    config = LlamaConfig.from_pretrained(directory)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    callback = AllocationCallback()
    values = [[1] * ROW] * (ROWS * 2)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(directory / "out"),
            per_device_train_batch_size=ROWS,
            max_steps=2,
            max_length=ROW,
            packing=packing,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            bf16=True,
            gradient_checkpointing=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=Dataset.from_dict({"input_ids": values, "labels": values}),
        processing_class=AutoTokenizer.from_pretrained(tiny),
        peft_config=LoraConfig(r=RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[callback],
    )
    trainer.train()
    return callback.allocations.peak


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize(("hidden", "inner", "layers"), [(256, 1024, 8), (512, 1024, 4)])
@pytest.mark.filterwarnings("ignore")
def test_the_estimate_is_within_a_tenth_of_what_torch_allocates(
    hidden: int,
    inner: int,
    layers: int,
    packing: bool,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without Triton the output layer allocates memory that it does not on a GPU, so that is made small.
    monkeypatch.setattr("trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE", 64)
    LlamaConfig(
        vocab_size=512,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
        tie_word_embeddings=False,
        pad_token_id=0,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(tmp_path)
    shape = read_shape(tmp_path, "pvc://models/x")
    spec = FineTuneJobSpec.model_validate(
        {
            "model": {"uri": "pvc://models/x"},
            "dataset": {"train": {"uri": "pvc://data/x"}},
            "method": {"sft": {"packing": packing}},
            "adapter": {"lora": {"rank": RANK}},
            "hyperparameters": {"maxLength": ROW, "batchSize": ROWS, "microBatchSize": ROWS},
            "compute": {"resources": {"gpus": 1}},
        }
    )
    examples = np.full(100, ROW)
    geometry = build_geometry(spec, choose_hyperparameters(spec, examples), shape, SampleLengths(examples, examples))
    memory = estimate_memory(shape, geometry)
    measured = measure_peak(tmp_path, model, packing=packing)
    assert memory.total - memory.overhead - memory.logits == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        (
            {"max_position_embeddings": 32},
            Reason.INVALID_SPEC,
            "hyperparameters.maxLength is 64, but pvc://models/tiny supports 32 tokens at most: lower it",
        ),
        (
            {"vocab_size": 100},
            Reason.MODEL_UNSUPPORTED,
            "its embedding has 100 rows: use tokenizer and weights of the same model",
        ),
        (
            {"architectures": ["BloomForCausalLM"]},
            Reason.NOT_SERVABLE,
            "pvc://models/tiny is a BloomForCausalLM, for which vLLM does not support adapters: use another base model",
        ),
        ({"hidden_size": "wide"}, Reason.MODEL_UNSUPPORTED, "transformers cannot build a model from its config.json"),
    ],
)
def test_a_model_that_could_not_be_trained_or_served_is_refused(
    changes: dict[str, Any], reason: Reason, message: str, model: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for file in model.iterdir():
        (base / file.name).symlink_to(file)
    config = json.loads((model / "config.json").read_text()) | changes
    (base / "config.json").unlink()
    (base / "config.json").write_text(json.dumps(config))
    workspace = make_workspace(tmp_path / "work", base, make_price_chats(20))
    with pytest.raises(StageError) as error:
        prepare(workspace.job, workspace.directory, None, "USD")
    assert error.value.reason == reason
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("gpus", "reason", "message"),
    [
        (
            1,
            Reason.GPU_TOO_SMALL,
            "GiB of memory per GPU, even with one sequence of 64 tokens at a time, but a GPU has 0.1 GiB: lower",
        ),
        (3, Reason.INVALID_SPEC, "batchSize 2 is not a multiple of 3 processes"),
    ],
)
def test_prepare_refuses_what_does_not_fit_the_gpus(
    gpus: int, reason: Reason, message: str, model: Path, tmp_path: Path
) -> None:
    workspace = make_workspace(tmp_path, model, make_price_chats(20), compute={"resources": {"gpus": gpus}})
    status, report = workspace.run("prepare", '--gpu={"memory": "100Mi"}')
    assert report is not None
    assert (status, report.reason) == (ExitCode.BAD_CONFIG, reason), workspace.log
    assert message in report.message


def test_prepare_estimates_the_steps_and_parameters_of_the_training(trained: Workspace) -> None:
    estimate = json.loads(trained.directory.report("prepare").read_text())["statistics"]["estimate"]
    report = trained.report()
    assert report is not None
    assert report.training is not None
    assert estimate["steps"] == report.training.steps
    with safe_open(trained.directory.adapter(1) / "adapter_model.safetensors", "pt") as weights:
        counted = sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118 - no mapping
    assert estimate["trainableParameters"] == counted
    assert (estimate["gpuHours"], estimate["cost"]) == (0, 0)
