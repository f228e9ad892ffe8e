"""Checks an adapter or a trained model before vLLM sees it; adapters are copied to where nobody changes them."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.artifact import Artifact, measure_directory
from finetune_api.contract.routes import Route
from finetune_api.digest import digest_directory
from finetune_api.modelserver import Model
from finetune_pod.modelfiles import ModelFilesError, check_safetensors, read_model_config
from finetune_pod.servability import LORA_MODULES

from finetune_serving.weights import Shapes, find_damage

_FILES = {"adapter_config.json", "adapter_model.safetensors"}


@dataclass(frozen=True)
class Limits:
    """Which adapters are taken."""

    base: Model
    """The model that they must have been trained on."""
    max_rank: int
    """Their largest rank."""
    shapes: Shapes
    """Of the base model's weights, as far as they are known."""


class AdapterRefusedError(Exception):
    """An adapter that must not be loaded; the message says why."""


def find_problem(config: dict[str, Any], base: Model, max_rank: int) -> str:
    """Return why vLLM cannot or must not serve an adapter of this configuration; empty where it can. Pure."""
    rank = config.get("r")
    trained_on = config.get("base_model_name_or_path"), config.get("revision")
    modules = config.get("target_modules")
    checks = (
        (config.get("peft_type") != "LORA", f"peft_type is {config.get('peft_type')!r}, not LORA"),
        (
            trained_on != (base.uri, base.revision),
            f"it was trained on {_name(*trained_on)}, this server has {_name(base.uri, base.revision)}",
        ),
        (
            type(rank) is not int or not 1 <= rank <= max_rank,
            f"its rank is {rank!r}, the server takes {max_rank} at most",
        ),
        (
            not isinstance(modules, list) or not set(map(str, modules)) <= set(LORA_MODULES),
            f"it changes {modules!r}, the server takes changes of {', '.join(LORA_MODULES)}",
        ),
        (bool(config.get("rank_pattern")), "ranks of single layers (rank_pattern) are not served"),
        (bool(config.get("use_dora")), "DoRA is not served: merge it"),
        (bool(config.get("modules_to_save")), "modules_to_save is not served"),
        (config.get("bias", "none") != "none", "bias is not served"),
    )
    return next((message for is_wrong, message in checks if is_wrong), "")


def _name(uri: Any, revision: Any) -> str:
    return f"{uri} at {revision}" if revision else f"{uri}"


def fetch_adapter(source: Path, made: Artifact | Route, directory: Path, limits: Limits) -> Path:
    """Copy an adapter into a directory named by its digest, check the copy, and return it.

    Args:
        source: where it lies.
        made: what it must be.
        directory: where the copy goes.
        limits: what is taken.

    Raises:
        AdapterRefusedError: it is not what the digest names, or cannot be served.
        OSError: it cannot be read for now.
    """
    target = directory / made.digest.removeprefix("sha256:")
    if target.exists():
        return target
    names = {path.name for path in source.iterdir()}
    if names != _FILES or any((source / name).is_symlink() or not (source / name).is_file() for name in names):
        raise AdapterRefusedError(
            f"it must hold exactly {' and '.join(sorted(_FILES))}, as files; it has {sorted(names)}"
        )
    _check_size(source, made.bytes)
    partial = directory / f"{target.name}.part"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in sorted(_FILES):
        shutil.copyfile(source / name, partial / name, follow_symlinks=False)
    problem = _check_copy(partial, made.digest, limits)
    if problem:
        shutil.rmtree(partial)
        raise AdapterRefusedError(problem)
    partial.rename(target)
    return target


def check_model(directory: Path, made: Artifact | Route, *, is_reward: bool) -> None:
    """Check a trained model where it lies: it is too large to be copied.

    Raises:
        AdapterRefusedError: it is not what the digest names, or would run code, or holds no safetensors.
        OSError: it cannot be read for now.
    """
    if not directory.is_dir():
        raise FileNotFoundError(2, "no such directory", str(directory))
    try:
        _check_size(directory, made.bytes)
        read_model_config(directory, made.uri, "ForSequenceClassification" if is_reward else "ForCausalLM")
        if digest_directory(directory) != made.digest:
            raise AdapterRefusedError(f"its content is not {made.digest[:19]}: it was changed after it was trained")
        check_safetensors([path.name for path in directory.iterdir()], made.uri)
    except (ModelFilesError, ValueError) as error:
        raise AdapterRefusedError(str(error)) from None


def _check_size(directory: Path, size: int) -> None:
    """Refuse what has grown before it is read: it may be without end."""
    found = measure_directory(directory)
    if found != size:
        raise AdapterRefusedError(f"it has {found} bytes instead of {size}: it was changed after it was trained")


def _check_copy(directory: Path, digest: str, limits: Limits) -> str:
    if digest_directory(directory) != digest:
        return f"its content is not {digest[:19]}: it was changed after it was proven"
    try:
        config = json.loads((directory / "adapter_config.json").read_text())
    except (ValueError, RecursionError):
        return "adapter_config.json is not JSON"
    if not isinstance(config, dict):
        return "adapter_config.json is no object"
    return find_problem(config, limits.base, limits.max_rank) or find_damage(
        directory / "adapter_model.safetensors", config["r"], limits.shapes
    )
