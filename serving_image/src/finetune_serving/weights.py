"""What is wrong with the weights of an adapter, before vLLM sees them."""

import re
from collections.abc import Mapping
from pathlib import Path

Shapes = Mapping[str, tuple[int, ...]]
"""By the name of a base model's weights, rows and columns."""

_PART = re.compile(r"\.lora_(A|B)\.")
_FLOATS = {"F64", "F32", "F16", "BF16"}
_LAYER_PREFIX = "base_model.model."


def read_shapes(model: str, revision: str | None) -> Shapes:
    """Return the shapes of a base model's weights, as far as they are whole numbers of its layers: packed ones are not.

    Args:
        model: a directory, or a repository on the hub; of one that is not on this machine (yet) there are none.
        revision: of the repository.
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
            for name in weights.keys():  # noqa: SIM118 - the file is no mapping
                part = weights.get_slice(name)
                if part.get_dtype() in _FLOATS:
                    shapes[name] = tuple(part.get_shape())
    return shapes


def find_damage(path: Path, rank: int, shapes: Shapes) -> str:
    """Return what is wrong with an adapter's weights; empty where nothing is.

    vLLM takes parts that are too small without a word, and finds other damage in the middle of a step.

    Args:
        path: the file.
        rank: what its configuration says.
        shapes: of the base model's weights; layers without one are not compared.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as weights:
            names = set(weights.keys())
            for name in sorted(names):
                part = _PART.search(name)
                if part is None or name.replace(part[0], ".lora_A." if part[1] == "B" else ".lora_B.") not in names:
                    return f"its weights have {name[:200]} without its counterpart"
                layer = shapes.get(name.removeprefix(_LAYER_PREFIX).replace(part[0], "."), (None, None))
                tensor = weights.get_tensor(name)
                wanted = (rank, layer[1]) if part[1] == "A" else (layer[0], rank)
                if len(tensor.shape) != 2 or not all(
                    size in (None, found) for size, found in zip(wanted, tensor.shape, strict=True)
                ):
                    return f"its weights do not fit its rank and the base model: {name[:200]} is {tuple(tensor.shape)}"
                if not tensor.is_floating_point() or not tensor.isfinite().all():
                    return f"its weights are no numbers: {name[:200]}"
    except SafetensorError as error:
        return f"its weights cannot be read: {error}"
    return "" if names else "its weights are none"
