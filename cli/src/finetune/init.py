"""Writes a first manifest for a file with data: `finetune init`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from finetune_api.data import METHOD_FORMATS
from finetune_api.meta import API_VERSION
from finetune_api.training import Method
from finetune_api.uris import SEGMENT, parse_uri

from finetune.errors import CommandError
from finetune.manifests import Manifest

_MAX_CONFIG_MAP = 1_000_000
"""Bytes that a ConfigMap can hold besides its metadata: etcd limits an object to 1.5 MiB, Kubernetes its data to 1."""


@dataclass(frozen=True)
class Data:
    """What a file with data says about its training."""

    path: Path
    format: str
    columns: dict[str, str]
    """See `columns` of a source."""

    @property
    def method(self) -> str:
        """The first training method that accepts the format."""
        return next(method for method, formats in METHOD_FORMATS.items() if self.format in formats)

    @property
    def fits_config_map(self) -> bool:
        """Whether a ConfigMap can hold the file."""
        return self.path.stat().st_size <= _MAX_CONFIG_MAP


def inspect_data(path: Path) -> Data:
    """Return the format of the rows of a file, by its first row.

    Raises:
        CommandError: the file cannot be read, or its rows have no known format.
    """
    from finetune_trainer.prepare.files import Row, UnknownFileError, read_rows
    from finetune_trainer.prepare.row_issues import RowError
    from finetune_trainer.prepare.row_reader import RowReader

    if not re.fullmatch(SEGMENT, path.name):
        raise CommandError(f"{path.name}: rename the file, so that its name has only letters, digits, '.', '_' and '-'")
    try:
        first = next(read_rows(path), None)
    except (OSError, UnknownFileError) as error:
        raise CommandError(f"{path}: {error}") from None
    if not isinstance(first, Row):
        raise CommandError(f"{path}: {first.message if first else 'the file has no rows'}")
    try:
        data = _inspect_row(path, first.value)
        RowReader(Method.model_validate({data.method: {}}), columns=data.columns).read(first.value, None)
    except RowError as error:
        raise CommandError(f"{path}: {error}") from None
    return data


def _inspect_row(path: Path, row: dict[str, Any]) -> Data:
    from finetune_trainer.prepare.columns import propose_columns, select_columns
    from finetune_trainer.prepare.formats import detect_format
    from finetune_trainer.prepare.rewrite import rewrite_row
    from finetune_trainer.prepare.row_issues import RowError

    columns: dict[str, str] = {}
    try:
        data_format = detect_format(rewrite_row(row), "dataset.train")
    except RowError:
        columns = propose_columns(rewrite_row(row))
        data_format = detect_format(rewrite_row(select_columns(row, columns, "dataset.train")), "dataset.train")
    if data_format == "Prompt":
        raise CommandError(
            f"{path} has prompts without answers: method.grpo learns from graders, which only you can write;"
            " docs/training.md has an example"
        )
    return Data(path, data_format, columns)


def choose_name(path: Path) -> str:
    """Return a name for the objects of a file, as Kubernetes allows it."""
    stem = path.name.partition(".")[0].lower()
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:40] or "tuned"


def build_manifests(data: Data, name: str, model: str, gpus: int) -> list[Manifest]:
    """Return a ModelServer for the base model, and the FineTuneJob of its first version.

    The server is an object of its own, so that the next versions replace the first one behind the same name.

    Args:
        data: the training data.
        name: of the job and of the served model.
        model: URI of the base model.
        gpus: number of GPUs of the training and of the server; 0 for CPUs.
    """
    source: dict[str, Any] = {"uri": f"{'configmap' if data.fits_config_map else 'pvc'}://{name}-data/{data.path.name}"}
    if data.columns:
        source["columns"] = data.columns
    resources = {"resources": {"gpus": gpus}} if gpus else {}
    server = f"{name}-server"
    job: dict[str, Any] = {
        "model": {"uri": model},
        "dataset": {"train": source},
        "method": {data.method: {}},
        "adapter": {"lora": {}},
        **({"compute": resources} if gpus else {}),
        "serving": {"modelName": name, "server": server},
    }
    return [
        {
            "apiVersion": API_VERSION,
            "kind": "ModelServer",
            "metadata": {"name": server},
            "spec": {"model": {"uri": model}} | resources,
        },
        {"apiVersion": API_VERSION, "kind": "FineTuneJob", "metadata": {"name": f"{name}-1"}, "spec": job},
    ]


def format_manifests(manifests: list[Manifest], data: Data, name: str, path: Path) -> str:
    """Return the YAML of the manifests, with a comment that says how to use them."""
    steps = [f"On this machine:  finetune run {path}", f"In a cluster:     kubectl apply -f {path}, and before it"]
    if data.fits_config_map:
        steps.append(f"  kubectl create configmap {name}-data --from-file={data.path}")
    else:
        steps[0] += f" --mount {name}-data={data.path.parent}"
        steps.append(f"  a PersistentVolumeClaim {name}-data with {data.path.name}: it is too large for a ConfigMap")
    model = parse_uri(manifests[0]["spec"]["model"]["uri"])
    if model.scheme == "pvc":
        steps[0] += f" --mount {model.authority}=<directory with {model.path}>"
    steps.append(f"The next version is another FineTuneJob ({name}-2) with the same serving.")
    comment = "".join(f"# {step}\n" for step in steps)
    return comment + "---\n".join(yaml.safe_dump(manifest, sort_keys=False) for manifest in manifests)
