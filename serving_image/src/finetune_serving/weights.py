"""Checks of an adapter's weights before vLLM loads them."""

import re
from collections.abc import Mapping
from pathlib import Path

Shapes = Mapping[str, tuple[int, ...]]
"""Rows and columns of a base model's weights, by the name of the tensor."""

_LORA_FACTOR = re.compile(r"\.lora_(A|B)\.")
_FLOATS = {"F64", "F32", "F16", "BF16"}
_LAYER_PREFIX = "base_model.model."


def read_shapes(model: str, revision: str | None) -> Shapes:
    """Return the shapes of a base model's floating-point weights.

    Packed (quantized) weights are left out: their shapes are not those of the layers.

    Args:
        model: a directory, or a repository on the hub; the result is empty if the repository is not in the local cache.
        revision: branch, tag or commit of the repository.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from safetensors import safe_open

    directory = Path(model)
    if not directory.is_dir():
        try:
            directory = Path(snapshot_download(model, revision=revision, local_files_only=True))
        except LocalEntryNotFoundError:
            return {}
    shapes = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - the file is not a mapping
                tensor = weights.get_slice(name)
                if tensor.get_dtype() in _FLOATS:
                    shapes[name] = tuple(tensor.get_shape())
    return shapes


def check_adapter_weights(path: Path, rank: int, shapes: Shapes) -> str:
    """Return what is wrong with an adapter's weights; empty if nothing is.

    vLLM silently accepts tensors that are too small, and fails on other damage in the middle of an engine step.

    Args:
        path: the safetensors file.
        rank: the rank in the adapter's configuration.
        shapes: shapes of the base model's weights; layers that are not in it are not compared.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as weights:
            names = set(weights.keys())
            for name in sorted(names):
                factor = _LORA_FACTOR.search(name)
                if (
                    factor is None
                    or name.replace(factor[0], ".lora_A." if factor[1] == "B" else ".lora_B.") not in names
                ):
                    return f"its weights contain {name[:200]} without the matching lora_A or lora_B"
                layer = shapes.get(name.removeprefix(_LAYER_PREFIX).replace(factor[0], "."), (None, None))
                tensor = weights.get_tensor(name)
                expected = (rank, layer[1]) if factor[1] == "A" else (layer[0], rank)
                if len(tensor.shape) != 2 or not all(
                    size in (None, actual) for size, actual in zip(expected, tensor.shape, strict=True)
                ):
                    return (
                        f"its weights do not match its rank and the base model: {name[:200]} is {tuple(tensor.shape)}"
                    )
                if not tensor.is_floating_point() or not tensor.isfinite().all():
                    return f"its weights are not finite floating-point numbers: {name[:200]}"
    except SafetensorError as error:
        return f"its weights cannot be read: {error}"
    return "" if names else "its weights file contains no tensors"
