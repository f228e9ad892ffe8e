"""The Dockerfiles: user, entrypoint and sources of what they install."""

import re
from pathlib import Path

import pytest
from finetune_operator.manifests.pod import USER

ROOT = Path(__file__).parents[3]
DOCKERFILES = sorted(
    path for folder in ("operator", "trainer_image", "serving_image") for path in (ROOT / folder).glob("Dockerfile")
)


def read(path: Path) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile with their arguments."""
    text = re.sub(r"\\\n", " ", path.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines]


def test_each_image_has_a_dockerfile() -> None:
    assert len(DOCKERFILES) == 3


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_an_image_runs_one_program_as_the_pods_user(path: Path) -> None:
    instructions = read(path)
    names = [name for name, _ in instructions]
    assert [rest for name, rest in instructions if name == "USER"] == [f"{USER}:{USER}"]
    # Nothing runs as root after USER, and no shell receives the signals for the program.
    assert names[-2:] == ["USER", "ENTRYPOINT"]
    assert re.fullmatch(r'\["finetune-[a-z]+"\]', instructions[-1][1])


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_an_image_installs_only_locked_packages(path: Path) -> None:
    instructions = read(path)
    assert not [rest for name, rest in instructions if name == "ADD"]
    commands = " ".join(rest for name, rest in instructions if name == "RUN")
    assert not re.search(r"\b(curl|wget|apt-get|git)\b", commands)
    bases = [rest.removeprefix("BASE=") for name, rest in instructions if name == "ARG" and rest.startswith("BASE=")]
    assert len(bases) == 1
    assert re.search(r":[^/]+$", bases[0])
    assert not bases[0].endswith(":latest")
