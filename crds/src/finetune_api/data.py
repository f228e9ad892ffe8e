"""The data of a FineTuneJob: where its examples lie and what their rows are."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.model import ApiModel, Rule, not_both
from finetune_api.modelserver import Revision
from finetune_api.references import SecretRef
from finetune_api.uris import DataUri

Format = Literal["Chat", "PromptCompletion", "Instruction", "Text", "Preference", "UnpairedPreference", "Prompt"]
"""What the rows of a data file are."""
SFT_FORMATS: tuple[Format, ...] = ("Chat", "PromptCompletion", "Instruction", "Text")
"""What supervised fine-tuning learns from."""
METHOD_FORMATS: dict[str, tuple[Format, ...]] = {
    "sft": SFT_FORMATS,
    "dpo": ("Preference",),
    "orpo": ("Preference",),
    "reward": ("Preference",),
    "kto": ("UnpairedPreference", "Preference"),
    "grpo": ("Prompt", "PromptCompletion", "Chat"),
}
"""What each method learns from. `kto` takes a preference as two judged answers, a good and a bad one; `grpo` asks
for the last answer of a conversation again and gives the one that is there to the graders, as `answer`."""


def accepted_formats(method_name: str) -> tuple[Format, ...]:
    """Return the formats that a method learns from, by its field in `spec.method`."""
    return METHOD_FORMATS[method_name]


class DataSource(ApiModel):
    """A file with examples, or a directory with several: JSONL, JSON, CSV, TSV or Parquet, plain or compressed."""

    uri: DataUri
    """Where it lies: `pvc://claim/path`, `configmap://name/key`, `hf://org/name` of a dataset or a path in it,
    `s3://bucket/key` or a prefix, `https://host/path` of a file at a host that the administrator lists."""
    revision: Revision | None = None
    """Branch, tag or commit on the hub."""
    secret_ref: SecretRef | None = None
    """Secret for a private dataset on the hub, for the bucket or for the host."""

    rules = (
        Rule(
            "self.uri.startsWith('hf://') || !has(self.revision)",
            "revision is for datasets on the hub (hf://)",
            lambda source: source.uri.startswith("hf://") or source.revision is None,
        ),
        Rule(
            "!has(self.secretRef) || ['hf', 's3', 'https'].exists(scheme, self.uri.startsWith(scheme + '://'))",
            "secretRef is for data that is fetched (hf://, s3://, https://)",
            lambda source: source.uri.startswith(("hf://", "s3://", "https://")) or source.secret_ref is None,
        ),
    )


class Dataset(ApiModel):
    """What to train on and what to keep for the proof."""

    train: DataSource
    """Conversations to train on."""
    validation: DataSource | None = None
    """Held-out conversations for the evaluation; never trained on."""
    format: Format | None = None
    """What the rows are: `Chat` (OpenAI's messages, with tools), `PromptCompletion`, `Instruction` (Alpaca's fields),
    `Text`, `Preference`, `UnpairedPreference` (an answer with a label) or `Prompt` (for graders); without it what the
    fields of the first row say."""
    holdout: Annotated[float, Field(gt=0, le=0.5)] | None = None
    """Fraction of `train` kept for the evaluation instead; 0.1 when neither is given."""

    rules = (not_both("validation", "holdout"),)
