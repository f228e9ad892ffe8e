"""The command lines of pods, from the operator's side to the programs'."""

from pathlib import Path

import pytest
from finetune_api.artifact import Artifact, Incumbent
from finetune_api.contract.commands import (
    Drain,
    Evaluate,
    Export,
    PodPaths,
    Prepare,
    Serve,
    ServerCommand,
    Train,
    TrainerCommand,
    build_server_url,
    parse_server_arguments,
    parse_trainer_arguments,
    read_incumbent,
    read_server_name,
)
from finetune_api.estimate import GpuKind
from finetune_api.modelserver import EngineSettings
from hypothesis import given
from hypothesis import strategies as st

ARTIFACT = Artifact(uri="pvc://out/job/adapter/1", digest=f"sha256:{'0' * 64}", bytes=7)
NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
"""Values may hold anything: an argument is one text, whatever is in it."""
PATHS = NAMES.map(lambda name: Path("/", name))
PORTS = st.integers(1, 65535)
ARTIFACTS = st.builds(
    lambda name, attempt, kind, size: ARTIFACT.model_copy(
        update={"uri": f"pvc://out/{name}/adapter/{attempt}", "kind": kind, "bytes": size}
    ),
    *(NAMES, st.integers(1, 99), st.sampled_from(["Adapter", "Model"]), st.integers(0, 2**53)),
)
INCUMBENTS = st.just(Incumbent()) | st.builds(Incumbent, job=NAMES, artifact=st.none() | ARTIFACTS)
GPUS = st.builds(
    GpuKind,
    node_selector=st.just({}) | st.just({"gpu": "h100"}),
    memory=st.none() | st.just("80Gi"),
    tflops=st.none() | st.floats(1, 100_000),
    hour_price=st.none() | st.floats(0, 1_000_000),
)
ENGINES = st.builds(EngineSettings, quantization=st.none() | st.just("fp8"), enable_prefix_caching=st.booleans())
TRAINER = (
    st.builds(Prepare, st.none() | GPUS, st.none() | st.sampled_from(["USD", "EUR"]))
    | st.builds(Train, st.integers(1, 99_999), TEXTS, PORTS)
    | st.builds(Export, ARTIFACTS)
)
SERVER = (
    st.builds(
        Serve,
        model_uri=TEXTS,
        max_rank=st.sampled_from([8, 512]),
        max_adapters=st.integers(1, 256),
        engine=ENGINES,
        revision=st.none() | TEXTS,
        chat_template=st.none() | TEXTS,
        model_cache=PATHS,
        keys=st.just("") | TEXTS,
        routes=PATHS,
        host=TEXTS,
        port=PORTS,
    )
    | st.builds(Drain, st.integers(1, 9999) | st.floats(0.1, 9999), PORTS)
    | st.builds(Evaluate, ARTIFACTS, INCUMBENTS, st.just("") | st.builds(build_server_url, NAMES, NAMES))
)


@given(TRAINER)
def test_the_trainer_parses_what_the_operator_writes(command: TrainerCommand) -> None:
    assert parse_trainer_arguments(command.to_args()) == (PodPaths(), command)


@given(SERVER)
def test_the_server_parses_what_the_operator_writes(command: ServerCommand) -> None:
    assert parse_server_arguments(command.to_args()) == (PodPaths(), command)


@given(INCUMBENTS, NAMES, NAMES)
def test_the_operator_reads_back_what_it_told_an_evaluation(incumbent: Incumbent, namespace: str, server: str) -> None:
    arguments = Evaluate(ARTIFACT, incumbent, build_server_url(namespace, server)).to_args()
    assert read_incumbent(arguments) == incumbent
    assert read_server_name(arguments) == server
    assert read_server_name(Evaluate(ARTIFACT, incumbent).to_args()) == ""


@pytest.mark.parametrize("arguments", [[], ["evaluate"], ["--incumbent=x"], ["--incumbent={}x"], ["--incumbent"]])
def test_changed_arguments_hold_no_incumbent(arguments: list[str]) -> None:
    assert read_incumbent(arguments) is None


def test_defaults_are_left_out() -> None:
    assert Prepare().to_args() == ["prepare"]
    assert Train(3).to_args() == ["train", "--attempt=3"]
    assert Drain(240).to_args() == ["drain", "--longest=240"]
    assert Serve("pvc://m/b", max_rank=8, max_adapters=2, engine=EngineSettings()).to_args()[-1] == "--port=8000"


def test_paths_can_be_those_of_a_test(tmp_path: Path) -> None:
    options = [f"--root={tmp_path}", "--job=/job.json", "--termination-log=/log"]
    assert parse_trainer_arguments([*options, "prepare"])[0] == PodPaths(tmp_path, Path("/job.json"), "/log")
    stage = Evaluate(ARTIFACT, Incumbent()).to_args()
    assert parse_server_arguments([options[0], *stage, *options[1:]])[0] == PodPaths(
        tmp_path, Path("/job.json"), "/log"
    )


def test_a_wrong_object_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_server_arguments(["evaluate", '--artifact={"uri": "pvc://out/a"}'])
    assert "argument --artifact: digest: Field required" in capsys.readouterr().err
