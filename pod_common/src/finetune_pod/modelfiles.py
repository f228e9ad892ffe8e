"""What a base model's directory must be before anything in it is trusted: no code, no pickles."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason

SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
"""What configuration and tokenizer are made of."""
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "README.md")
"""What is fetched with the weights; never pickles. The model's card names its licence."""


class ModelFilesError(Exception):
    """A directory that holds no model, or one that must not be loaded."""

    reason = Reason.MODEL_UNSUPPORTED


class UnsafeModelError(ModelFilesError):
    """A model that would run code of its own, or has nothing but pickles."""

    reason = Reason.MODEL_UNSAFE


def read_model_config(directory: Path, uri: str, wanted: str = "ForCausalLM") -> dict[str, Any]:
    """Return the model's config.json after all checks; `wanted` is how the name of its architecture ends.

    Raises:
        ModelFilesError: the message says what is wrong and what to use instead.
    """
    try:
        config = json.loads((directory / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ModelFilesError(f"{uri}: config.json cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ModelFilesError(f"{uri}: config.json is no object")
    if "auto_map" in config or list(directory.glob("*.py")):
        raise UnsafeModelError(f"{uri} brings code of its own, which is never run: use a model that needs none")
    architectures = config.get("architectures") or []
    if not any(str(name).endswith(wanted) for name in architectures):
        kinds = ", ".join(map(str, architectures)) or "of no known kind"
        raise ModelFilesError(f"{uri} is {kinds}: a *{wanted} is needed")
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
        raise UnsafeModelError(f"{uri} holds no *.safetensors: pickles are not loaded, convert them")
