"""How a FineTuneJob trains: the method, the adapter and the hyperparameters."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.graders import Grader
from finetune_api.model import ApiModel, Rule, exactly_one
from finetune_api.texts import Text

Beta = Annotated[float, Field(gt=0, le=2)]
MethodName = Literal["sft", "dpo", "kto", "orpo", "grpo", "reward"]
AdapterName = Literal["lora", "qlora", "dora", "rslora", "full"]
Module = Annotated[
    str,
    Text(
        r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$",
        "use the name of a layer or the end of it, without a pattern, such as q_proj or shared_expert.up_proj",
        128,
    ),
]
"""Name of a layer in the model, or the end of it: `q_proj`, `shared_expert.up_proj`."""
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks for which vLLM reserves room; it rounds an adapter's rank up to one of them."""
Layers = Annotated[list[Annotated[int, Field(ge=0, le=1023)]], Field(min_length=1, max_length=256)]


class Sft(ApiModel):
    """Supervised fine-tuning: the model learns to answer like the examples."""

    packing: bool | None = None
    """Packs several short examples into one sequence, which is faster but leaves fewer steps. It is not done where the
    model's architecture mixes packed examples. Default: true if at least 300 steps are left."""
    assistant_only_loss: bool = True
    """Computes the loss on the assistant's messages only; if false, on all messages."""


class Dpo(ApiModel):
    """Direct preference optimization: the model learns to prefer one answer to another."""

    beta: Beta = 0.1
    """How closely the model stays to the base model: a higher value keeps it closer."""
    # The API server rounds the bounds of whole numbers down: below 0.5 exclusive it would refuse 0.
    label_smoothing: Annotated[float, Field(ge=0, le=0.49)] = 0.0
    """Fraction of the preferences that are assumed to be reversed."""


class Kto(ApiModel):
    """Kahneman-Tversky optimization: the model learns from single answers that are labeled good or bad."""

    beta: Beta = 0.1
    """How closely the model stays to the base model: a higher value keeps it closer."""
    desirable_weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Weight of the good answers in the loss. Raise it if there are fewer good answers than bad ones."""
    undesirable_weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Weight of the bad answers in the loss."""


class Orpo(ApiModel):
    """Odds ratio preference optimization: fine-tuning and preference in one loss, without a reference model."""

    beta: Beta = 0.1
    """Weight of the odds ratio term relative to the likelihood of the preferred answer (lambda in the paper)."""


class Grpo(ApiModel):
    """Group relative policy optimization: reinforcement learning on several answers per prompt that graders score."""

    graders: Annotated[list[Grader], Field(min_length=1, max_length=8)]
    """Graders, each of which scores an answer from 0 to 1. The reward is the sum of the scores."""
    num_generations: Annotated[int, Field(ge=2, le=64)] = 8
    """Number of answers generated for each prompt and compared with one another. It must divide the batch size."""
    max_completion_length: Annotated[int, Field(ge=1, le=32_768)] = 256
    """Maximum number of tokens generated for one answer."""
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Sampling temperature of the generated answers."""
    beta: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Coefficient of the KL penalty: a higher value keeps the model closer to the base model. With 0 no reference model
    is loaded."""


class Reward(ApiModel):
    """Reward modeling: the model learns to score preferred answers higher. It generates no text and is not served."""

    center_rewards_coefficient: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Weight of an extra loss term that keeps the mean score near zero. With 0 there is no such term."""


_METHODS: tuple[MethodName, ...] = ("sft", "dpo", "kto", "orpo", "grpo", "reward")


class Method(ApiModel):
    """The training method. Set exactly one field."""

    sft: Sft | None = None
    """Supervised fine-tuning, from answers to imitate."""
    dpo: Dpo | None = None
    """Direct preference optimization, from pairs of answers."""
    kto: Kto | None = None
    """Kahneman-Tversky optimization, from single answers that are labeled good or bad."""
    orpo: Orpo | None = None
    """Odds ratio preference optimization, from pairs of answers."""
    grpo: Grpo | None = None
    """Group relative policy optimization: reinforcement learning with graders as rewards."""
    reward: Reward | None = None
    """Training of a reward model, from pairs of answers."""

    rules = (exactly_one("method", _METHODS),)

    @property
    def name(self) -> MethodName:
        """Return the name of the chosen method."""
        return next(name for name in _METHODS if getattr(self, name) is not None)


class LowRank(ApiModel):
    """Settings of a low-rank adapter (LoRA) on linear layers."""

    rank: Annotated[int, Field(ge=1, le=LORA_RANKS[-1])] = 16
    """Rank of the update matrices (`r` in PEFT)."""
    alpha: Annotated[int, Field(ge=1, le=4096)] = 32
    """Scaling of the update: it is multiplied by alpha / rank, for `rslora` by alpha / √rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout probability of the adapter's input during training."""
    target_modules: Annotated[list[Module], Field(min_length=1, max_length=32)] | None = None
    """Linear layers that get an adapter, by the end of their names in the model: `q_proj`, `shared_expert.up_proj`.
    Default: all linear layers that vLLM adapts, without the output layer and without the routers and routed experts of
    a mixture; `status.hyperparameters.targetModules` lists them."""
    layers: Layers | None = None
    """Indices of the decoder layers that get an adapter, starting at 0. Default: all layers."""


class Full(ApiModel):
    """Full fine-tuning: the weights of the model itself are trained."""

    layers: Layers | None = None
    """Indices of the decoder layers that are trained, starting at 0. All other weights, embeddings included, stay
    frozen. Default: all weights are trained."""


_ADAPTERS: tuple[AdapterName, ...] = ("lora", "qlora", "dora", "rslora", "full")


class Adapter(ApiModel):
    """What is trained: a low-rank adapter or the model's own weights. Set exactly one field."""

    lora: LowRank | None = None
    """A LoRA adapter."""
    qlora: LowRank | None = None
    """A LoRA adapter on weights quantized to 4 bits, which take a fourth of the memory. Computes in bfloat16."""
    dora: LowRank | None = None
    """A DoRA adapter, which learns magnitude and direction separately. It is merged into the weights after the
    training, because vLLM cannot load DoRA adapters."""
    rslora: LowRank | None = None
    """A rank-stabilized LoRA adapter, for high ranks."""
    full: Full | None = None
    """Full fine-tuning of all weights, or of the weights of some layers."""

    rules = (exactly_one("adapter", _ADAPTERS),)

    @property
    def name(self) -> AdapterName:
        """Return the name of the chosen adapter."""
        return next(name for name in _ADAPTERS if getattr(self, name) is not None)

    @property
    def low_rank(self) -> LowRank | None:
        """Return the settings of the low-rank adapter; None for `full`."""
        return self.lora or self.qlora or self.dora or self.rslora

    @property
    def is_merged(self) -> bool:
        """Whether the result is a whole model and not an adapter."""
        return self.dora is not None or self.full is not None


class EarlyStopping(ApiModel):
    """Stops the training when the loss on a split of the training data no longer falls, and keeps the best checkpoint.

    The held-out data of the evaluation is not used for this.
    """

    patience: Annotated[int, Field(ge=1, le=100)] = 3
    """Number of consecutive evaluations without a lower loss after which the training stops."""
    eval_steps: Annotated[int, Field(ge=1, le=100_000)] = 50
    """Number of optimizer steps between two evaluations. Each evaluation also saves a checkpoint."""
    fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Fraction of the training data on which this loss is computed. It is not trained on."""


class Hyperparameters(ApiModel):
    """Hyperparameters of the training. `status.hyperparameters` shows the values chosen for omitted fields."""

    epochs: Annotated[float, Field(gt=0, le=50)] | None = None
    """Number of passes over the training data. Default: 3; more for under 34 examples, fewer for over 8,333."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Peak learning rate of AdamW. Default: depends on the method; for low-rank adapters ten times that of `full`."""
    lr_scheduler: Literal["Cosine", "Linear", "Constant"] = "Cosine"
    """Shape of the learning rate schedule after the warmup."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Number of sequences in one optimizer step, over all devices. Default: at most 8, fewer if the training would have
    less than 100 steps; more for large datasets."""
    micro_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Number of sequences on a device at a time. It must divide the batch size. Default: at most 8."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Fraction of the steps during which the learning rate rises from 0 to its peak."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Weight decay of AdamW."""
    max_grad_norm: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Maximum norm of the gradients; larger gradients are clipped to it."""
    max_length: Annotated[int, Field(ge=16, le=1_048_576)] = 1024
    """Maximum length of a sequence in tokens. Longer conversations are truncated at the end."""
    neftune_noise_alpha: Annotated[float, Field(gt=0, le=100)] | None = None
    """Scale of the noise on the embeddings during training (NEFTune), for `sft` only. 5 is usual. Default: no noise."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the target probability that is spread over all tokens, for `sft` only."""
    early_stopping: EarlyStopping | None = None
    """Stops the training before its last step when it no longer helps. Default: all steps are trained."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 42
    """Random seed of the data split, the examples that a weight of `dataset.mix` chooses, their order and the initial
    adapter weights."""

    rules = (
        Rule(
            "!has(self.microBatchSize) || !has(self.batchSize) || self.batchSize % self.microBatchSize == 0",
            "microBatchSize must divide batchSize: choose a divisor or leave it out",
            lambda values: not values.micro_batch_size or (values.batch_size or 0) % values.micro_batch_size == 0,
        ),
    )
