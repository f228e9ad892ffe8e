"""The baseline, a script as users of TRL write it: `python -m bench.plain_trl MODEL DATA OUT BATCH SEED`."""

import json
import sys
import time
from typing import Any

from bench.settings import ALPHA, EPOCHS, LEARNING_RATE, MAX_LENGTH, RANK
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Timer(TrainerCallback):  # type: ignore[misc]
    """Prints when the first step is done, and the seconds of the whole training."""

    started = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.started = time.monotonic()

    def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        if state.global_step == 1:
            print("step 1 of", state.max_steps, flush=True)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        print(json.dumps({"seconds": time.monotonic() - self.started}), flush=True)


def main(model: str, data: str, out: str, batch_size: str, seed: str) -> None:
    """Train a LoRA adapter on rows with prompt and completion."""
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype="float32"),
        args=SFTConfig(
            output_dir=out,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=int(batch_size),
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="cosine",
            warmup_steps=0.03,
            max_length=MAX_LENGTH,
            save_strategy="no",
            logging_steps=1,
            report_to="none",
            seed=int(seed),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
        ),
        train_dataset=load_dataset("json", data_files=data, split="train", cache_dir=f"{out}/cache"),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[Timer()],
    )
    trainer.train()
    trainer.save_model(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
