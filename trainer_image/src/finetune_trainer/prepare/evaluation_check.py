"""Refuses what the evaluation could not measure on the held-out data, before a GPU is taken."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from finetune_api.conditions import Reason
from finetune_api.evaluation import Evaluation
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_pod.measurable import find_problem, read_traits
from finetune_pod.toolcalls import learn_format
from jsonschema import Draft202012Validator, SchemaError

from finetune_trainer.failures import StageError
from finetune_trainer.prepare.formats import Example
from finetune_trainer.prepared import read_examples
from finetune_trainer.tokenizer import Tokenizer


def check_evaluation(spec: FineTuneJobSpec, heldout: Path, tokenizer: Tokenizer) -> None:
    """Check `evaluation` against the prepared held-out data.

    Raises:
        StageError: it asks for what the data or the model cannot give; the message names the field.
    """
    asked = spec.evaluation

    def read() -> Iterator[Example]:
        return islice(read_examples(heldout), asked.max_examples)

    traits = read_traits(read(), is_scored=spec.method.reward is not None)
    problem = (
        _check_schema(asked.json_schema)
        or find_problem(asked, traits, spec.graders, read())
        or _check_calls(asked, tokenizer)
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
        return f"evaluation.jsonSchema is no JSON schema: {error.message}"
    return ""


def _check_calls(asked: Evaluation, tokenizer: Tokenizer) -> str:
    """Return why calls of tools cannot be told apart where they are to be judged."""
    metrics = [*(asked.metrics or []), *(gate.metric for gate in asked.gates or [])]
    if "ToolCallValid" in metrics and learn_format(tokenizer.apply) is None:
        return "evaluation asks for ToolCallValid, and the model's chat template writes no calls as name and JSON"
    return ""
