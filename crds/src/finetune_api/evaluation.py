"""How good is good enough: what is measured on the held-out data, and the gates."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.model import ApiModel, Rule

Metric = Literal["Perplexity", "ExactMatch", "RougeL"]


class Gate(ApiModel):
    """How much better than the base model the tuned one must be on one metric.

    The lower end of the 95 % interval of the gain decides, so luck does not pass.
    """

    metric: Metric
    """Perplexity (lower is better), ExactMatch or RougeL (higher is better)."""
    relative_to: Literal["Base"] = "Base"
    """What the tuned model is compared with."""
    min_gain: Annotated[float, Field(ge=0, le=1)] | None = None
    """Least gain: for Perplexity the fraction by which it falls, else the difference of the scores."""
    max_loss: Annotated[float, Field(ge=0, le=1)] | None = None
    """Most that may be lost, on the same scales."""

    rules = (
        Rule(
            "has(self.minGain) != has(self.maxLoss)",
            "give exactly one of minGain and maxLoss",
            lambda gate: (gate.min_gain is None) != (gate.max_loss is None),
        ),
    )


class Evaluation(ApiModel):
    """How good is good enough."""

    gates: Annotated[list[Gate], Field(max_length=8)] = [Gate(metric="Perplexity", min_gain=0)]
    """All must pass before anything is served. By default the perplexity must fall."""
    max_examples: Annotated[int, Field(ge=2, le=10_000)] = 200
    """Held-out conversations used at most."""
    max_answer_tokens: Annotated[int, Field(ge=1, le=4096)] = 128
    """Tokens generated for one answer at most."""
