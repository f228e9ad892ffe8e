"""How a FineTuneJob trains: the method, what is trained, and how the optimizer runs."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.graders import Grader
from finetune_api.model import ApiModel, Rule, exactly_one

Beta = Annotated[float, Field(gt=0, le=2)]
MethodName = Literal["sft", "dpo", "kto", "orpo", "grpo", "reward"]
AdapterName = Literal["lora", "qlora", "dora", "rslora", "full"]
Module = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks for which vLLM reserves room; it rounds an adapter's rank up to one of them."""
Layers = Annotated[list[Annotated[int, Field(ge=0, le=1023)]], Field(min_length=1, max_length=256)]


class Sft(ApiModel):
    """Supervised fine-tuning: learns to answer as the data does."""

    packing: bool = True
    """Put several short conversations into one sequence; faster, the same loss."""
    assistant_only_loss: bool = True
    """Learn the assistant's messages alone; otherwise the questions too."""


class Dpo(ApiModel):
    """Direct preference optimisation: learns to prefer one answer to another, without leaving the base far behind."""

    beta: Beta = 0.1
    """How strongly the model is held to the base: higher stays closer."""
    # The API server rounds the bounds of whole numbers down: below 0.5 exclusive it would refuse 0.
    label_smoothing: Annotated[float, Field(ge=0, le=0.49)] = 0.0
    """Share of the preferences that are assumed to be the wrong way round."""


class Kto(ApiModel):
    """Kahneman-Tversky optimisation: learns from single answers that were judged good or bad."""

    beta: Beta = 0.1
    """How strongly the model is held to the base: higher stays closer."""
    desirable_weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Weight of the good answers; raise it where they are the fewer."""
    undesirable_weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Weight of the bad answers."""


class Orpo(ApiModel):
    """Odds-ratio preference optimisation: learns the better answer and to prefer it, without a reference model."""

    beta: Beta = 0.1
    """Weight of the preference beside the likelihood of the better answer."""


class Grpo(ApiModel):
    """Group relative policy optimisation: answers each prompt several times, and learns from what graders say."""

    graders: Annotated[list[Grader], Field(min_length=1, max_length=8)]
    """Each scores an answer from 0 to 1; the reward is the sum of the scores."""
    num_generations: Annotated[int, Field(ge=2, le=64)] = 8
    """Answers to one prompt that are compared with one another; must divide the batch size."""
    max_completion_length: Annotated[int, Field(ge=1, le=32_768)] = 256
    """Tokens generated for one answer at most."""
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Temperature of the answers."""
    beta: Annotated[float, Field(ge=0, le=2)] = 0.0
    """How strongly the model is held to the base; 0 needs no reference model."""


class Reward(ApiModel):
    """A reward model: learns to score the better answer higher. It scores and does not answer, so it is not served."""

    center_rewards_coefficient: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Weight of a term that keeps the mean score near zero."""


_METHODS: tuple[MethodName, ...] = ("sft", "dpo", "kto", "orpo", "grpo", "reward")


class Method(ApiModel):
    """How to train; exactly one."""

    sft: Sft | None = None
    """Supervised fine-tuning."""
    dpo: Dpo | None = None
    """Direct preference optimisation."""
    kto: Kto | None = None
    """Kahneman-Tversky optimisation, from answers that were judged one by one."""
    orpo: Orpo | None = None
    """Odds-ratio preference optimisation."""
    grpo: Grpo | None = None
    """Reinforcement learning from graders."""
    reward: Reward | None = None
    """A reward model."""

    rules = (exactly_one("method", _METHODS),)

    @property
    def name(self) -> MethodName:
        """The method that is chosen."""
        return next(name for name in _METHODS if getattr(self, name) is not None)


class LowRank(ApiModel):
    """A low-rank update of linear layers."""

    rank: Annotated[int, Field(ge=1, le=LORA_RANKS[-1])] = 16
    """Rank of the update."""
    alpha: Annotated[int, Field(ge=1, le=4096)] = 32
    """Scale of the update: alpha / rank, for rslora alpha / √rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the update, while training."""
    target_modules: Annotated[list[Module], Field(min_length=1, max_length=7)] | None = None
    """Linear layers that are updated; without it all of attention and MLP."""
    layers: Layers | None = None
    """Decoder layers that are updated, counted from 0; without it all."""


class Full(ApiModel):
    """The model's own weights."""

    layers: Layers | None = None
    """Decoder layers that are trained, counted from 0; the rest, embeddings included, stays frozen. Without it all."""


_ADAPTERS: tuple[AdapterName, ...] = ("lora", "qlora", "dora", "rslora", "full")


class Adapter(ApiModel):
    """What is trained; exactly one."""

    lora: LowRank | None = None
    """A LoRA adapter."""
    qlora: LowRank | None = None
    """A LoRA adapter over weights quantised to 4 bits: a fourth of the memory. Computes in bfloat16."""
    dora: LowRank | None = None
    """An adapter that learns magnitude and direction apart; merged into the weights at the end, as vLLM loads none."""
    rslora: LowRank | None = None
    """A rank-stabilised LoRA adapter, for high ranks."""
    full: Full | None = None
    """All weights, or those of some layers."""

    rules = (exactly_one("adapter", _ADAPTERS),)

    @property
    def name(self) -> AdapterName:
        """The adapter that is chosen."""
        return next(name for name in _ADAPTERS if getattr(self, name) is not None)

    @property
    def low_rank(self) -> LowRank | None:
        """The low-rank update; None for `full`."""
        return self.lora or self.qlora or self.dora or self.rslora

    @property
    def is_merged(self) -> bool:
        """Whether the result is a whole model instead of an adapter."""
        return self.dora is not None or self.full is not None


class EarlyStopping(ApiModel):
    """Ends the training when the loss on a part of the training data no longer falls, and keeps the best checkpoint.

    The held-out data, which proves, is not looked at.
    """

    patience: Annotated[int, Field(ge=1, le=100)] = 3
    """Evaluations in a row without a lower loss before the training ends."""
    eval_steps: Annotated[int, Field(ge=1, le=100_000)] = 50
    """Optimizer steps between two evaluations; a checkpoint is saved with each."""
    fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Fraction of the training data that is kept back for it."""


class Hyperparameters(ApiModel):
    """How the optimizer runs. What is left out is chosen for the job; `status.hyperparameters` shows the choice."""

    epochs: Annotated[float, Field(gt=0, le=50)] | None = None
    """Passes over the data; by default 3, more for under 34 examples, fewer for over 8,333."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Peak learning rate of AdamW; by default by method, ten times higher for low-rank adapters than for `full`."""
    lr_scheduler: Literal["Cosine", "Linear", "Constant"] = "Cosine"
    """How the learning rate falls after the warm-up."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Sequences in one optimizer step, over all devices; by default 8, more for very many examples."""
    micro_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Sequences on a device at a time; must divide the batch size. By default 8 at most."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Fraction of the steps in which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Weight decay of AdamW."""
    max_grad_norm: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Gradients are scaled down to this norm."""
    max_length: Annotated[int, Field(ge=16, le=1_048_576)] = 1024
    """Tokens of a sequence; longer conversations lose their tail."""
    neftune_noise_alpha: Annotated[float, Field(gt=0, le=100)] | None = None
    """Noise on the embeddings while training (NEFTune), for `sft`; 5 is usual."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread over all tokens, for `sft`."""
    early_stopping: EarlyStopping | None = None
    """Ends the training before its last epoch when it no longer helps."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 42
    """Seed of the split, the order and the initial adapter."""

    rules = (
        Rule(
            "!has(self.microBatchSize) || !has(self.batchSize) || self.batchSize % self.microBatchSize == 0",
            "microBatchSize must divide batchSize",
            lambda values: not values.micro_batch_size or (values.batch_size or 0) % values.micro_batch_size == 0,
        ),
    )
