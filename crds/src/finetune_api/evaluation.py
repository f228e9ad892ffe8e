"""How good is good enough: what is measured on the held-out data, and the gates."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.graders import Grader
from finetune_api.model import ApiModel, Rule

Metric = Literal[
    "Perplexity",
    "PreferenceAccuracy",
    "Grader",
    "ExactMatch",
    "TokenF1",
    "RougeL",
    "ClassificationF1",
    "JsonValid",
    "ToolCallValid",
    "Bleu",
    "Rouge1",
    "Rouge2",
]
"""What can be measured, in the order of the reports."""
RelativeTo = Literal["Base", "Incumbent"]


class Gate(ApiModel):
    """How much better than the base model, or than what serves now, the tuned one must be on one metric.

    The lower end of the 95 % interval of the gain decides, so luck does not pass.
    """

    metric: Metric
    """One of `evaluation.metrics`. Perplexity is better when lower, all others when higher."""
    grader: Annotated[str, Field(max_length=32)] | None = None
    """For the metric `Grader`, the name of one of the graders."""
    relative_to: RelativeTo = "Base"
    """What the tuned model is compared with: the base model, or the adapter that serves under the same name on the same
    ModelServer when the evaluation begins. Where nothing serves yet, the base model is taken for the incumbent."""
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
        Rule(
            "(self.metric == 'Grader') == has(self.grader)",
            "grader names the grader of the metric Grader, and of no other",
            lambda gate: (gate.metric == "Grader") == (gate.grader is not None),
        ),
    )


class Evaluation(ApiModel):
    """How good is good enough."""

    metrics: Annotated[list[Metric], Field(min_length=1, max_length=12)] | None = None
    """What is measured; by default everything that applies to the data: `Perplexity`, `ExactMatch`, `TokenF1`, `Bleu`,
    `Rouge1`, `Rouge2`, `RougeL` of answers; `ClassificationF1` where the answers are labels, `JsonValid` where they
    are JSON, `ToolCallValid` where they call tools; `PreferenceAccuracy` of preferences; `Grader` where there are
    graders."""
    graders: Annotated[
        list[Grader],
        Field(
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []
    """Graders of the answers, each a metric of its own; by default those of `method.grpo`."""
    json_schema: Annotated[str, Field(min_length=2, max_length=16_384)] | None = None
    """JSON schema, as JSON, that answers must follow to be `JsonValid`."""
    gates: Annotated[list[Gate], Field(max_length=8)] | None = None
    """All must pass before anything is served. By default one: the perplexity must fall; of preferences the accuracy
    must rise, of prompts without answers the first grader's grade."""
    max_examples: Annotated[int, Field(ge=2, le=10_000)] = 200
    """Held-out examples used at most."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 128
    """Tokens generated for one answer at most."""

    rules = (
        Rule(
            "!has(self.metrics) || !has(self.gates) || self.gates.all(gate, gate.metric in self.metrics)",
            "gates ask for a metric that is not in metrics",
            lambda evaluation: (
                evaluation.metrics is None or all(gate.metric in evaluation.metrics for gate in evaluation.gates or [])
            ),
        ),
        Rule(
            "!has(self.graders) || self.graders.size() == 0 || !has(self.gates)"
            " || self.gates.all(gate, !has(gate.grader) || self.graders.exists(one, one.name == gate.grader))",
            "gates[].grader is the name of none of graders",
            lambda evaluation: (
                not evaluation.graders
                or {gate.grader for gate in evaluation.gates or [] if gate.grader}
                <= {one.name for one in evaluation.graders}
            ),
        ),
    )
