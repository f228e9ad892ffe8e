"""Checks that the evaluation can be computed on the held-out data, before the job requests a GPU."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from finetune_api.conditions import Reason
from finetune_api.evaluation import Evaluation
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_pod.measurable import check_evaluation, read_traits
from finetune_pod.toolcalls import learn_format
from jsonschema import Draft202012Validator, SchemaError

from finetune_trainer.failures import StageError
from finetune_trainer.prepare.formats import Example
from finetune_trainer.prepared import read_examples
from finetune_trainer.tokenizer import Tokenizer


def check_evaluation_on_heldout(spec: FineTuneJobSpec, heldout: Path, tokenizer: Tokenizer) -> None:
    """Check `evaluation` against the prepared held-out data.

    Raises:
        StageError: the data or the model does not allow a metric or a gate; the message names the field.
    """
    evaluation = spec.evaluation

    def read() -> Iterator[Example]:
        return islice(read_examples(heldout), evaluation.max_examples)

    traits = read_traits(read(), is_reward_model=spec.method.reward is not None)
    problem = (
        _check_schema(evaluation.json_schema)
        or check_evaluation(evaluation, traits, spec.graders, read())
        or _check_tool_calls(evaluation, tokenizer)
    )
    if problem:
        raise StageError(Reason.INVALID_SPEC, problem)


def _check_schema(text: str | None) -> str:
    """Return what is wrong with the schema of valid answers."""
    if text is None:
        return ""
    try:
        Draft202012Validator.check_schema(json.loads(text))
    except ValueError as error:
        return f"evaluation.jsonSchema is not JSON: {error}"
    except SchemaError as error:
        return f"evaluation.jsonSchema is not a JSON schema: {error.message}"
    return ""


def _check_tool_calls(evaluation: Evaluation, tokenizer: Tokenizer) -> str:
    """Return why ToolCallValid cannot be computed: the template's syntax of tool calls cannot be parsed."""
    metrics = [*(evaluation.metrics or []), *(gate.metric for gate in evaluation.gates or [])]
    if "ToolCallValid" in metrics and learn_format(tokenizer.encoder.template.render) is None:
        return (
            "evaluation asks for ToolCallValid, but the model's chat template does not write tool calls as a name and"
            " JSON arguments: use another metric"
        )
    return ""
