"""The evaluation of a FineTuneJob: metrics on the held-out data, and gates."""

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
"""The metrics, in the order of the reports."""
RelativeTo = Literal["Base", "Incumbent"]


class Gate(ApiModel):
    """A requirement on one metric that the tuned model must meet before it is served.

    The lower bound of the gain's 95 % confidence interval is compared with the requirement.
    """

    metric: Metric
    """One of `evaluation.metrics`. Lower is better for Perplexity, higher for all others."""
    grader: Annotated[str, Field(max_length=32)] | None = None
    """Name of the grader. Required for the metric `Grader`, not allowed otherwise."""
    relative_to: RelativeTo = "Base"
    """What the tuned model is compared with: `Base` is the base model, `Incumbent` the version that serves under the
    same name on the same ModelServer when the evaluation starts. Without an incumbent the base model is used."""
    min_gain: Annotated[float, Field(ge=0, le=1)] | None = None
    """Minimum gain: for Perplexity the fraction by which it falls, for other metrics the difference of the scores."""
    max_regression: Annotated[float, Field(ge=0, le=1)] | None = None
    """Maximum regression that is accepted, on the same scale as `minGain`."""

    rules = (
        Rule(
            "has(self.minGain) != has(self.maxRegression)",
            "set exactly one of minGain and maxRegression",
            lambda gate: (gate.min_gain is None) != (gate.max_regression is None),
        ),
        Rule(
            "(self.metric == 'Grader') == has(self.grader)",
            "set grader if metric is Grader, and leave it out otherwise",
            lambda gate: (gate.metric == "Grader") == (gate.grader is not None),
        ),
    )


class Evaluation(ApiModel):
    """How the tuned model is evaluated, and which gates it must pass before it is served."""

    metrics: Annotated[list[Metric], Field(min_length=1, max_length=12)] | None = None
    """Metrics to compute. Default: all that apply to the data: `Perplexity`, `ExactMatch`, `TokenF1`, `Bleu`, `Rouge1`,
    `Rouge2` and `RougeL` for answers; `ClassificationF1` if the answers are labels; `JsonValid` if they are JSON;
    `ToolCallValid` if they call tools; `PreferenceAccuracy` for preferences; `Grader` if there are graders."""
    graders: Annotated[
        list[Grader],
        Field(
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []
    """Graders of the answers. Each is reported as a metric of its own. Default: the graders of `method.grpo`."""
    json_schema: Annotated[str, Field(min_length=2, max_length=16_384)] | None = None
    """JSON Schema, as a JSON string, that answers must match for `JsonValid`. Default: any valid JSON counts."""
    gates: Annotated[list[Gate], Field(max_length=8)] | None = None
    """Gates, all of which must pass before the result is served. Default: perplexity must fall, for preferences the
    accuracy must rise; and the generated answers must not get worse: the first grader's score, or else `TokenF1`, may
    fall by 0.1 at most. For prompts without answers the first grader's score must rise."""
    min_examples: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Minimum number of held-out examples with which a gate can be decided. With fewer it is inconclusive, and the
    result is not served."""
    max_examples: Annotated[int, Field(ge=2, le=10_000)] = 200
    """Maximum number of held-out examples to evaluate."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 128
    """Maximum number of tokens generated for one answer."""

    rules = (
        Rule(
            "!has(self.metrics) || !has(self.gates) || self.gates.all(gate, gate.metric in self.metrics)",
            "gates[].metric must be one of metrics: add it there or remove the gate",
            lambda evaluation: (
                evaluation.metrics is None or all(gate.metric in evaluation.metrics for gate in evaluation.gates or [])
            ),
        ),
        Rule(
            "!has(self.graders) || self.graders.size() == 0 || !has(self.gates)"
            " || self.gates.all(gate, !has(gate.grader) || self.graders.exists(grader, grader.name == gate.grader))",
            "gates[].grader must be the name of one of graders",
            lambda evaluation: (
                not evaluation.graders
                or {gate.grader for gate in evaluation.gates or [] if gate.grader}
                <= {grader.name for grader in evaluation.graders}
            ),
        ),
    )
