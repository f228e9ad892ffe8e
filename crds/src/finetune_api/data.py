"""The data of a FineTuneJob: the location of its files and the format of their rows."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from finetune_api.model import ApiModel, Rule, exactly_one, not_both
from finetune_api.modelserver import Revision
from finetune_api.references import SecretRef
from finetune_api.uris import DataUri

Format = Literal["Chat", "PromptCompletion", "Instruction", "Text", "Preference", "UnpairedPreference", "Prompt"]
"""Format of the rows of a data file."""
SFT_FORMATS: tuple[Format, ...] = ("Chat", "PromptCompletion", "Instruction", "Text")
"""Formats that supervised fine-tuning accepts."""
METHOD_FORMATS: dict[str, tuple[Format, ...]] = {
    "sft": SFT_FORMATS,
    "dpo": ("Preference",),
    "orpo": ("Preference",),
    "reward": ("Preference",),
    "kto": ("UnpairedPreference", "Preference"),
    "grpo": ("Prompt", "PromptCompletion", "Chat"),
}
"""Formats that each method accepts. `kto` reads a preference as two labeled answers, a good and a bad one; `grpo`
generates a new last answer to a conversation and passes the given one to the graders as `answer`."""


def accepted_formats(method_name: str) -> tuple[Format, ...]:
    """Return the formats that a method accepts, by its field name in `spec.method`."""
    return METHOD_FORMATS[method_name]


FieldName = Literal[
    "messages",
    "conversations",
    "system",
    "tools",
    "prompt",
    "completion",
    "label",
    "instruction",
    "input",
    "output",
    "text",
    "chosen",
    "rejected",
]
"""Field of a format."""
Columns = Annotated[dict[FieldName, Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=16)]
"""For each field of a format the column that it is read from."""


class DataSource(ApiModel):
    """A file with examples, or a directory of such files: JSONL, JSON, CSV, TSV or Parquet, plain or compressed."""

    uri: DataUri
    """Location of the data: `pvc://claim/path`; `configmap://name/key`; `hf://org/name`, a dataset, or a path in it;
    `s3://bucket/key`, an object or a prefix; `https://host/path`, a file on a host that the administrator allows."""
    revision: Revision | None = None
    """Branch, tag or commit on the Hugging Face Hub, for `hf://` only. Default: the repository's default branch."""
    secret_ref: SecretRef | None = None
    """Secret with the credentials for a private dataset on the Hub, for the bucket, or for the host."""
    format: Format | None = None
    """Format of the rows: `Chat` (OpenAI messages, with tools), `PromptCompletion`, `Instruction` (Alpaca), `Text`,
    `Preference`, `UnpairedPreference` (an answer with a label) or `Prompt` (for graders). Default: detected from the
    fields of the first row."""
    columns: Columns | None = None
    """Columns from which the fields of a format are read, for data with other names: `prompt: question`. The path of a
    nested value has dots: `prompt: turns.0.text`."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.uri.startsWith('hf://') || !has(self.revision)",
            "revision can only be set for datasets on the Hub (hf://)",
            lambda source: source.uri.startswith("hf://") or source.revision is None,
        ),
        Rule(
            "!has(self.secretRef) || ['hf', 's3', 'https'].exists(scheme, self.uri.startsWith(scheme + '://'))",
            "secretRef can only be set for data that is downloaded (hf://, s3://, https://)",
            lambda source: source.uri.startswith(("hf://", "s3://", "https://")) or source.secret_ref is None,
        ),
    )


class MixedSource(DataSource):
    """One of several sources of training data."""

    weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    """How many times an epoch trains on each example of the source: 1 is once, 2 is twice, 0.2 is a random fifth of the
    examples, 1.5 is every example once and a random half of them twice. The examples are chosen with
    `hyperparameters.seed`, and every epoch has the same ones."""


class Dataset(ApiModel):
    """The training data and the held-out data for the evaluation."""

    train: DataSource | None = None
    """Examples to train on, from one source. Set this or `mix`."""
    mix: Annotated[list[MixedSource], Field(min_length=1, max_length=16)] | None = None
    """Examples to train on, from several sources with weights. An epoch is one pass over the mix. Set this or
    `train`."""
    validation: DataSource | None = None
    """Held-out examples for the evaluation; the model is not trained on them. Default: a split of the training data,
    see `holdout`."""
    reasoning: Literal["Keep", "Strip"] = "Keep"
    """What to do with the reasoning in the assistant's messages: `Keep` learns it where the model's chat template has a
    place for it; `Strip` removes it, so that the model learns to answer without it."""
    holdout: Annotated[float, Field(gt=0, le=0.5)] | None = None
    """Fraction of the training data that is held out for the evaluation, of a `mix` without repetitions. Default: 0.1
    if `validation` is not set either; up to 0.2 where 0.1 is fewer than `evaluation.minExamples`. With the same
    `hyperparameters.seed` most examples stay held out when others are added."""

    rules = (exactly_one("source of training data", ("train", "mix")), not_both("validation", "holdout"))

    @property
    def sources(self) -> dict[str, MixedSource]:
        """The sources of the training data by the path of their field in the spec; `train` is a mix of one."""
        if self.train is not None:
            return {"dataset.train": MixedSource(**dict(self.train))}
        return {f"dataset.mix[{index}]": source for index, source in enumerate(self.mix or ())}
