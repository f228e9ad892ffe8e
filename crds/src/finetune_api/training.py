"""How a FineTuneJob trains: the method, what is trained, and how the optimizer runs."""

from typing import Annotated

from pydantic import Field

from finetune_api.model import ApiModel, Rule


class Sft(ApiModel):
    """Supervised fine-tuning on the assistant's turns."""

    packing: bool = True
    """Put several short conversations into one sequence; faster, the same loss."""


class Method(ApiModel):
    """How to train; exactly one."""

    sft: Sft | None = None
    """Supervised fine-tuning."""

    rules = (Rule("has(self.sft)", "choose a method: sft", lambda method: method.sft is not None),)


class Lora(ApiModel):
    """Low-rank adaptation."""

    rank: Annotated[int, Field(ge=1, le=512)] = 16
    """Rank of the update."""
    alpha: Annotated[int, Field(ge=1, le=4096)] = 32
    """Scale of the update: alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the update, while training."""


class Adapter(ApiModel):
    """What is trained; exactly one."""

    lora: Lora | None = None
    """A LoRA adapter on all linear layers but the output layer."""

    rules = (Rule("has(self.lora)", "choose an adapter: lora", lambda adapter: adapter.lora is not None),)


class Hyperparameters(ApiModel):
    """How the optimizer runs. What is left out is chosen by the trainer and told in its report."""

    epochs: Annotated[float, Field(gt=0, le=50)] | None = None
    """Passes over the data; by default 3, more for under 34 examples, fewer for over 8,333."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    """Peak learning rate of AdamW."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 8
    """Sequences in one optimizer step, over all devices."""
    micro_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Sequences on a device at a time; must divide the batch size. By default 8 at most."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Fraction of the steps in which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Weight decay of AdamW."""
    max_length: Annotated[int, Field(ge=16, le=1_048_576)] = 1024
    """Tokens of a sequence; longer conversations lose their tail."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 42
    """Seed of the split, the order and the initial adapter."""

    rules = (
        Rule(
            "!has(self.microBatchSize) || self.batchSize % self.microBatchSize == 0",
            "microBatchSize must divide batchSize",
            lambda values: values.micro_batch_size is None or values.batch_size % values.micro_batch_size == 0,
        ),
    )
