"""KUBERNETES_BIN replaces the build if its programs are complete and have the right version."""

from pathlib import Path

import pytest
from cluster import packages
from cluster.layout import ClusterError

PROGRAMS = (
    *("coredns", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"),
    *("kubectl", "containerd", "containerd-shim-runc-v2", "ctr", "helm"),
)


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with programs that print the required version."""
    directory = tmp_path / "given"
    directory.mkdir()
    for name in PROGRAMS:
        write(directory / name, packages.KUBERNETES)
    monkeypatch.setattr(packages, "BIN", tmp_path / "bin")
    monkeypatch.setattr(packages, "_RECORD", tmp_path / "bin" / "kubernetes.inputs")
    monkeypatch.setattr(packages, "check_machine", lambda: None)
    monkeypatch.setenv("KUBERNETES_BIN", str(directory))
    return directory


def write(program: Path, version: str) -> None:
    program.write_text(f"#!/bin/sh\necho Kubernetes {version}\n")
    program.chmod(0o755)


def test_programs_of_the_directory_are_linked_and_not_built(given: Path, tmp_path: Path) -> None:
    packages.install_kubernetes()
    packages.install_kubernetes()
    links = {path.name: path.resolve() for path in (tmp_path / "bin").iterdir() if path.is_symlink()}
    assert links == {name: given / name for name in PROGRAMS}


def test_a_directory_that_lacks_a_program_is_refused(given: Path) -> None:
    (given / "etcd").unlink()
    (given / "helm").chmod(0o644)
    with pytest.raises(ClusterError, match=r"KUBERNETES_BIN: .*/given lacks etcd, helm: add them"):
        packages.install_kubernetes()


def test_a_program_of_another_version_is_refused(given: Path, tmp_path: Path) -> None:
    write(given / "kubelet", "v1.30.0")
    with pytest.raises(ClusterError, match=rf"kubelet is Kubernetes v1.30.0, but {packages.KUBERNETES} is required"):
        packages.install_kubernetes()
    assert not list((tmp_path / "bin").iterdir())
