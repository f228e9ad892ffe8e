"""The command lines of pods: the operator builds the arguments, the programs in the images parse them."""

import json
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from finetune_api.artifact import Artifact, Incumbent
from finetune_api.contract.jobfile import describe_errors
from finetune_api.contract.mounts import JOB_FILE, ROUTES_FILE, SCRATCH
from finetune_api.estimate import GpuKind
from finetune_api.meta import METRICS_PORT, SERVER_PORT
from finetune_api.model import ApiModel
from finetune_api.modelserver import EngineSettings

TRAINER = "finetune-trainer"
"""The program of the trainer image."""
SERVER = "finetune-server"
"""The program of the serving image."""
_INCUMBENT = "--incumbent"
_SERVER_URL = "--server-url"
_Model = TypeVar("_Model", bound=ApiModel)


@dataclass(frozen=True)
class PodPaths:
    """Where a program finds its files. The operator never sets these: the defaults are a pod's, tests use others."""

    root: Path = Path("/")
    """The directory below which claims and ConfigMaps are mounted."""
    job: Path = Path(JOB_FILE)
    """The FineTuneJob as JSON."""
    termination_log: str = "/dev/termination-log"
    """Where a stage writes its report, and a server why it cannot start."""


@dataclass(frozen=True)
class Prepare:
    """Checks and splits the data, and estimates the training."""

    gpu: GpuKind | None = None
    """The GPU of the training, as far as the administrator has described it."""
    currency: str | None = None
    """Currency of its price."""

    def to_args(self) -> list[str]:
        """Return the arguments of the trainer."""
        gpu = [f"--gpu={_to_json(self.gpu)}"] if self.gpu else []
        return ["prepare", *gpu, *([f"--currency={self.currency}"] if self.currency else [])]


@dataclass(frozen=True)
class Train:
    """Trains the adapter or the model."""

    attempt: int
    """Number of the attempt, from 1."""
    leader: str = "localhost"
    """DNS name of the first node, where the processes of several nodes meet."""
    metrics_port: int = METRICS_PORT
    """Port for Prometheus."""

    def to_args(self) -> list[str]:
        """Return the arguments of the trainer; what is at its default is left out."""
        leader = [f"--leader={self.leader}"] if self.leader != Train.leader else []
        port = [f"--metrics-port={self.metrics_port}"] if self.metrics_port != Train.metrics_port else []
        return ["train", f"--attempt={self.attempt}", *leader, *port]


@dataclass(frozen=True)
class Export:
    """Merges and copies the result of the training, as `output` says."""

    artifact: Artifact
    """The result that passed the evaluation."""

    def to_args(self) -> list[str]:
        """Return the arguments of the trainer."""
        return ["export", f"--artifact={_to_json(self.artifact)}"]


@dataclass(frozen=True)
class Evaluate:
    """Compares the result of the training with its base model and with the incumbent."""

    artifact: Artifact
    """The result of the training."""
    incumbent: Incumbent
    """What the server hosts now."""
    server_url: str = ""
    """Address of a ModelServer that hosts all of them; empty where the stage loads them itself."""

    def to_args(self) -> list[str]:
        """Return the arguments of the server's program."""
        server = [f"{_SERVER_URL}={self.server_url}"] if self.server_url else []
        return [
            "evaluate",
            f"--artifact={_to_json(self.artifact)}",
            *server,
            f"{_INCUMBENT}={_to_json(self.incumbent)}",
        ]


@dataclass(frozen=True)
class Serve:
    """Serves a base model and the adapters of the routes file."""

    model_uri: str
    """The base model."""
    max_rank: int
    """Largest rank of an adapter."""
    max_adapters: int
    """Adapters on the GPU at a time."""
    engine: EngineSettings
    """Settings of vLLM."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    chat_template: str | None = None
    """The ConfigMap and its key with the chat template; None for the model's own."""
    model_cache: Path = Path(SCRATCH)
    """Where a fetched model is kept."""
    keys: str = ""
    """Directory with the API keys; empty where the server needs none."""
    routes: Path = Path(ROUTES_FILE)
    """The routes file."""
    host: str = "0.0.0.0"  # noqa: S104 - a pod's own
    """Address to listen on."""
    port: int = SERVER_PORT
    """Port to listen on."""

    def to_args(self) -> list[str]:
        """Return the arguments of the server's program; most of what is at its default is left out."""
        optional = {
            "--revision": (self.revision, None),
            "--chat-template": (self.chat_template, None),
            "--model-cache": (self.model_cache, Serve.model_cache),
            "--keys": (self.keys, Serve.keys),
            "--routes": (self.routes, Serve.routes),
            "--host": (self.host, Serve.host),
        }
        return [
            "serve",
            f"--model-uri={self.model_uri}",
            f"--max-rank={self.max_rank}",
            f"--max-adapters={self.max_adapters}",
            f"--engine={_to_json(self.engine)}",
            f"--port={self.port}",
            *(f"{option}={value}" for option, (value, default) in optional.items() if value != default),
        ]


@dataclass(frozen=True)
class Drain:
    """Waits until no request is in flight; runs in the server's container before Kubernetes stops it."""

    longest: float
    """Seconds after which it returns in any case."""
    port: int = SERVER_PORT
    """Port of the server."""

    def to_args(self) -> list[str]:
        """Return the arguments of the server's program."""
        return ["drain", f"--longest={self.longest}", *([f"--port={self.port}"] if self.port != Drain.port else [])]


TrainerCommand = Prepare | Train | Export
ServerCommand = Serve | Drain | Evaluate


def parse_trainer_arguments(arguments: Sequence[str] | None = None) -> tuple[PodPaths, TrainerCommand]:
    """Return the trainer's command, by default from this process's command line; wrong arguments end it."""
    parser = ArgumentParser(prog=TRAINER, description="The stages of a FineTuneJob that the trainer image runs.")
    _add_root(parser)
    _add_stage_paths(parser)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="check and split the data, estimate the training")
    prepare.add_argument("--gpu", type=_from_json(GpuKind), help="the GPU, as JSON: memory, tflops, hourPrice")
    prepare.add_argument("--currency", help="currency of hourPrice")
    train = commands.add_parser("train", help="train the adapter or the model")
    train.add_argument("--attempt", type=int, required=True, help="number of the attempt, from 1")
    train.add_argument("--leader", default=Train.leader, help="DNS name of the first of several nodes")
    train.add_argument("--metrics-port", type=int, default=Train.metrics_port, help="port for Prometheus")
    export = commands.add_parser("export", help="merge and copy the result, as output says")
    export.add_argument("--artifact", type=_from_json(Artifact), required=True, help="the result, as JSON")
    return _parse(parser, arguments, {"prepare": Prepare, "train": Train, "export": Export})


def parse_server_arguments(arguments: Sequence[str] | None = None) -> tuple[PodPaths, ServerCommand]:
    """Return the server program's command, by default from this process's command line; wrong arguments end it."""
    parser = ArgumentParser(prog=SERVER, description="What the serving image runs.")
    _add_root(parser)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve the base model and the adapters of the routes file")
    _add_termination_log(serve)
    serve.add_argument("--model-uri", required=True, help="the base model: hf://, s3:// or pvc://")
    serve.add_argument("--revision", help="branch, tag or commit on the hub")
    serve.add_argument("--chat-template", help="chat template to use instead of the model's: configmap://name/key")
    serve.add_argument(
        "--engine",
        type=_from_json(EngineSettings),
        default="{}",
        help="settings of vLLM, as JSON like engine of a ModelServer",
    )
    serve.add_argument("--max-rank", type=int, required=True, help="largest rank of an adapter")
    serve.add_argument("--max-adapters", type=int, required=True, help="adapters on the GPU at a time")
    serve.add_argument("--host", default=Serve.host, help="address to listen on")
    serve.add_argument("--port", type=int, default=Serve.port, help="port to listen on")
    serve.add_argument("--routes", type=Path, default=Serve.routes, help="the routes file")
    serve.add_argument("--model-cache", type=Path, default=Serve.model_cache, help="where a fetched model is kept")
    serve.add_argument("--keys", default=Serve.keys, help="directory with API keys; without it no key is required")
    drain = commands.add_parser("drain", help="wait until no request is in flight")
    drain.add_argument("--port", type=int, default=Drain.port, help="port of the server")
    drain.add_argument("--longest", type=float, required=True, help="seconds to wait at most")
    evaluate = commands.add_parser("evaluate", help="compare base and tuned model on the held-out data")
    _add_stage_paths(evaluate)
    evaluate.add_argument("--artifact", type=_from_json(Artifact), required=True, help="the tuned model, as JSON")
    evaluate.add_argument(
        _SERVER_URL, default=Evaluate.server_url, help="a server that hosts all versions; without it vLLM is loaded"
    )
    evaluate.add_argument(
        _INCUMBENT, type=_from_json(Incumbent), default="{}", help="what serves now, as JSON: the job and its artifact"
    )
    return _parse(parser, arguments, {"serve": Serve, "drain": Drain, "evaluate": Evaluate})


def read_incumbent(arguments: Iterable[str]) -> Incumbent | None:
    """Return the incumbent in the arguments of an evaluation, which somebody may have changed; None without one."""
    try:
        return Incumbent.model_validate_json(_read_value(arguments, _INCUMBENT))
    except ValidationError:
        return None


def read_server_name(arguments: Iterable[str]) -> str:
    """Return the name of the ModelServer in the arguments of an evaluation; empty without one."""
    return _read_value(arguments, _SERVER_URL).removeprefix("http://").partition(".")[0]


def build_server_url(namespace: str, server: str) -> str:
    """Return the address of a ModelServer inside the cluster."""
    return f"http://{server}.{namespace}.svc"


def _read_value(arguments: Iterable[str], option: str) -> str:
    prefix = f"{option}="
    return next((argument.removeprefix(prefix) for argument in arguments if argument.startswith(prefix)), "")


def _add_root(parser: ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, default=PodPaths.root, help="directory below which claims are mounted")


def _add_stage_paths(parser: ArgumentParser) -> None:
    parser.add_argument("--job", type=Path, default=PodPaths.job, help="the FineTuneJob as JSON")
    _add_termination_log(parser)


def _add_termination_log(parser: ArgumentParser) -> None:
    parser.add_argument("--termination-log", default=PodPaths.termination_log, help="file for the outcome")


def _parse(
    parser: ArgumentParser, arguments: Sequence[str] | None, commands: Mapping[str, type]
) -> tuple[PodPaths, Any]:
    values = vars(parser.parse_args(arguments))
    command = commands[values.pop("command")]
    paths = {field.name: values.pop(field.name) for field in fields(PodPaths) if field.name in values}
    return PodPaths(**paths), command(**values)


def _to_json(value: ApiModel) -> str:
    return json.dumps(value.to_dict(), sort_keys=True)


def _from_json(kind: type[_Model]) -> Callable[[str], _Model]:
    """Return the type of an argument that holds an API object as JSON."""

    def parse(text: str) -> _Model:
        try:
            return kind.model_validate_json(text)
        except ValidationError as error:
            raise ArgumentTypeError(describe_errors(error)) from None

    return parse
