"""Checks of an adapter or a trained model before vLLM loads it; adapters are copied to a directory of our own."""

import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.artifact import Artifact, measure_directory
from finetune_api.contract.routes import Route
from finetune_api.digest import digest_directory
from finetune_api.modelserver import Model
from finetune_pod.architectures import LORA_LAYERS
from finetune_pod.modelfiles import LANGUAGE_MODEL, ModelFilesError, check_safetensors, read_model_config

from finetune_serving.weights import Shapes, check_adapter_weights

_FILES = {"adapter_config.json", "adapter_model.safetensors"}


@dataclass(frozen=True)
class AdapterPolicy:
    """The adapters that may be loaded."""

    base: Model
    """The base model that an adapter must have been trained on."""
    max_rank: int
    """Maximum rank of an adapter."""
    base_shapes: Shapes
    """Shapes of the base model's weights, as far as they are known."""


class AdapterRefusedError(Exception):
    """An adapter or a trained model that must not be loaded. The message says why."""


def check_adapter_config(config: dict[str, Any], base: Model, max_rank: int) -> str:
    """Return why vLLM cannot or must not serve an adapter with this configuration; empty if it can. No I/O."""
    rank = config.get("r")
    trained_on = config.get("base_model_name_or_path"), config.get("revision")
    modules = config.get("target_modules")
    checks = (
        (config.get("peft_type") != "LORA", f"its peft_type is {config.get('peft_type')!r}; only LORA is supported"),
        (
            trained_on != (base.uri, base.revision),
            f"it was trained on {_format_model(*trained_on)}, not on {_format_model(base.uri, base.revision)}",
        ),
        (
            type(rank) is not int or not 1 <= rank <= max_rank,
            f"its rank is {rank!r}; it must be an integer from 1 to {max_rank}",
        ),
        (
            not isinstance(modules, list) or not {str(name).rpartition(".")[2] for name in modules} <= LORA_LAYERS,
            f"its target_modules are {modules!r:.200}; only linear layers are supported, by their names",
        ),
        (bool(config.get("rank_pattern")), "rank_pattern (ranks of single layers) is not supported"),
        (bool(config.get("use_dora")), "use_dora (DoRA) is not supported: merge the adapter into its base model"),
        (bool(config.get("modules_to_save")), "modules_to_save is not supported"),
        (config.get("bias", "none") != "none", "bias is not supported"),
    )
    return next((message for is_wrong, message in checks if is_wrong), "")


def _format_model(uri: Any, revision: Any) -> str:
    return f"{uri} at {revision}" if revision else f"{uri}"


def copy_adapter(source: Path, expected: Artifact | Route, directory: Path, policy: AdapterPolicy) -> Path:
    """Copy an adapter into a directory named by its digest, check the copy, and return its path.

    Args:
        source: the adapter's directory.
        expected: its digest and size.
        directory: the copy becomes a subdirectory of this one.
        policy: the adapters that may be loaded.

    Raises:
        AdapterRefusedError: the content does not match the digest, or the adapter cannot be served.
        OSError: the adapter cannot be read at the moment.
    """
    target = directory / expected.digest.removeprefix("sha256:")
    if target.exists():
        return target
    names = {path.name for path in source.iterdir()}
    if names != _FILES or any((source / name).is_symlink() or not (source / name).is_file() for name in names):
        raise AdapterRefusedError(
            f"it must contain exactly the files {' and '.join(sorted(_FILES))}; it contains {sorted(names)}"
        )
    _check_size(source, expected.bytes)
    partial = directory / f"{target.name}.part"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in sorted(_FILES):
        shutil.copyfile(source / name, partial / name, follow_symlinks=False)
    problem = _check_copy(partial, expected.digest, policy)
    if problem:
        shutil.rmtree(partial)
        raise AdapterRefusedError(problem)
    partial.rename(target)
    return target


def check_applied(unused: Sequence[Collection[str]]) -> None:
    """Refuse a loaded adapter with layers that no worker of vLLM applies: its answers would not be what was trained.

    Args:
        unused: for each worker the names of the layers that it does not apply.

    Raises:
        AdapterRefusedError: the message names such layers.
    """
    names = sorted(set.intersection(*map(set, unused)))
    if names:
        raise AdapterRefusedError(
            f"vLLM does not apply {len(names)} of its layers, such as {names[0]}: train it with"
            " adapter.<kind>.targetModules without these"
        )


def check_model(directory: Path, expected: Artifact | Route, *, is_reward: bool) -> None:
    """Check a trained model in place: it is too large to copy.

    Raises:
        AdapterRefusedError: the content does not match the digest, would run code, or has no safetensors.
        OSError: the model cannot be read at the moment.
    """
    if not directory.is_dir():
        raise FileNotFoundError(2, "no such directory", str(directory))
    try:
        _check_size(directory, expected.bytes)
        read_model_config(directory, expected.uri, "ForSequenceClassification" if is_reward else LANGUAGE_MODEL)
        if digest_directory(directory) != expected.digest:
            raise AdapterRefusedError(_describe_wrong_digest(expected.digest))
        check_safetensors([path.name for path in directory.iterdir()], expected.uri)
    except (ModelFilesError, ValueError) as error:
        raise AdapterRefusedError(str(error)) from None


def _check_size(directory: Path, expected_bytes: int) -> None:
    """Refuse a directory of the wrong size before its files are read: they may be huge."""
    actual_bytes = measure_directory(directory)
    if actual_bytes != expected_bytes:
        raise AdapterRefusedError(
            f"it has {actual_bytes} bytes instead of {expected_bytes}: it was changed after the training"
        )


def _describe_wrong_digest(digest: str) -> str:
    return f"its digest is not {digest[:19]}: it was changed after the training"


def _check_copy(directory: Path, digest: str, policy: AdapterPolicy) -> str:
    if digest_directory(directory) != digest:
        return _describe_wrong_digest(digest)
    try:
        config = json.loads((directory / "adapter_config.json").read_text())
    except (ValueError, RecursionError):
        return "adapter_config.json is not valid JSON"
    if not isinstance(config, dict):
        return "adapter_config.json is not a JSON object"
    return check_adapter_config(config, policy.base, policy.max_rank) or check_adapter_weights(
        directory / "adapter_model.safetensors", config["r"], policy.base_shapes
    )
