"""Checks the files of a base model before anything loads them: no code, no pickles."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason

from finetune_pod.architectures import WITH_IMAGES

LANGUAGE_MODEL = "ForCausalLM"
"""How the name of a language model's architecture ends, but for those in WITH_IMAGES."""
SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
"""The files of configuration and tokenizer."""
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "README.md")
"""The files that are fetched with the weights; never pickles. The model card names the license."""


class ModelFilesError(Exception):
    """A directory without a model, or with one that must not be loaded."""

    reason = Reason.MODEL_UNSUPPORTED


class UnsafeModelError(ModelFilesError):
    """A model that contains its own code, or has only pickles."""

    reason = Reason.MODEL_UNSAFE


def read_model_config(directory: Path, uri: str, architecture: str = LANGUAGE_MODEL) -> dict[str, Any]:
    """Return the model's config.json after all checks.

    Args:
        directory: of the model.
        uri: of the model, for messages.
        architecture: how the name of its architecture must end.

    Raises:
        ModelFilesError: the message says what is wrong and what to use instead.
    """
    try:
        config = json.loads((directory / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ModelFilesError(f"{uri}: config.json cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ModelFilesError(f"{uri}: config.json is not a JSON object")
    if "auto_map" in config or list(directory.glob("*.py")):
        raise UnsafeModelError(f"{uri} contains its own code, which is never run: use a model without code")
    architectures = config.get("architectures") or []
    others = WITH_IMAGES if architecture == LANGUAGE_MODEL else ()
    if not any(str(name).endswith(architecture) or name in others for name in architectures):
        names = ", ".join(map(str, architectures)) or "of unknown architecture"
        raise ModelFilesError(f"{uri} is {names}: a *{architecture} is needed")
    return config


def check_safetensors(names: Iterable[str], uri: str) -> None:
    """Refuse a model whose files include no safetensors.

    Args:
        names: of its files.
        uri: of the model, for the message.

    Raises:
        UnsafeModelError: there are none.
    """
    if not any(name.endswith(".safetensors") for name in names):
        raise UnsafeModelError(f"{uri} contains no *.safetensors: pickles are never loaded, convert them")


def collect_stop_tokens(eos_token_id: Any, tokenizer: Any) -> set[int]:
    """Return the ids of the tokens at which vLLM ends an answer; some models have one for each kind of turn.

    Args:
        eos_token_id: the value in the model's generation_config.json, or in its config.json if it has none.
        tokenizer: the model's.
    """
    listed = eos_token_id if isinstance(eos_token_id, list) else [eos_token_id]
    return {token for token in (*listed, tokenizer.eos_token_id) if token is not None}
