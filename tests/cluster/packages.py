"""Installs the cluster's programs: Kubernetes, containerd and Helm from one Go module, the rest from Debian."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cluster.layout import BIN, CACHE, ClusterError, digest_inputs, log_progress

KUBERNETES = "v1.36.3"
_RECORD = BIN / "kubernetes.inputs"
_OBJECT_STORE = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
_PARTS = (
    "coredns",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
)
_VERSIONED = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")
"""Programs that must have exactly the version above; Kubernetes allows others to differ."""
_TOOLS = ("containerd", "containerd-shim-runc-v2", "ctr", "helm")
_DIRECTORY = "KUBERNETES_BIN"
"""Environment variable: a directory with all these programs, to skip the build."""
_DEBIAN = {
    "runc": "runc",
    "buildah": "buildah",
    "skopeo": "skopeo",
    "mmdebstrap": "mmdebstrap",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}


def check_machine() -> None:
    """Check that the embedded Kubernetes can run here.

    Raises:
        ClusterError: it cannot; the message says what to do.
    """
    alternative = "use your own cluster: CLUSTER=current REGISTRY=<registry> make demo"
    if sys.platform != "linux":
        raise ClusterError(f"the embedded Kubernetes runs only on Linux: {alternative}")
    if os.geteuid() != 0:
        raise ClusterError(f"the embedded Kubernetes needs root: run as root, or {alternative}")
    if shutil.which("go") is None:
        raise ClusterError(f"building the embedded Kubernetes needs Go 1.26 or newer: install it, or {alternative}")


def install_kubernetes() -> None:
    """Link the programs from KUBERNETES_BIN, or build them.

    Raises:
        ClusterError: the build failed, or the directory lacks a program or has another version of it.
    """
    check_machine()
    BIN.mkdir(parents=True, exist_ok=True)
    if directory := os.environ.get(_DIRECTORY):
        _link_programs(Path(directory).resolve())
    else:
        _build_programs()


def _link_programs(directory: Path) -> None:
    if missing := [name for name in (*_PARTS, *_TOOLS) if not os.access(directory / name, os.X_OK)]:
        raise ClusterError(f"{_DIRECTORY}: {directory} lacks {', '.join(missing)}: add them, or unset it to build them")
    for name in _VERSIONED:
        version = _run([str(directory / name), "--version"], directory).strip()
        if version != f"Kubernetes {KUBERNETES}":
            raise ClusterError(f"{_DIRECTORY}: {directory / name} is {version}, but {KUBERNETES} is required")
    if directory == BIN:
        return
    for name in (*_PARTS, *_TOOLS):
        (BIN / name).unlink(missing_ok=True)
        (BIN / name).symlink_to(directory / name)
    _RECORD.write_text(str(directory))


def _build_programs() -> None:
    """Build the programs if their inputs changed; all at once, since they share most of their packages."""
    version = "k8s.io/component-base/version"
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    flags = f"-s -w -X {version}.gitVersion={KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
    # -w drops the debugger's data, so the compiler need not generate it.
    options = ["-trimpath", "-gcflags=all=-dwarf=false", "-ldflags", flags]
    source = Path(__file__).parent / "go"
    inputs = digest_inputs(source.iterdir(), " ".join(options))
    if not _RECORD.exists() or _RECORD.read_text() != inputs:
        log_progress("building Kubernetes, containerd and Helm from their Go modules (10 to 15 minutes, once)")
        with tempfile.TemporaryDirectory(dir=BIN) as built:
            # `tool`: Helm and containerd, as go.mod lists them.
            _go(["build", *options, "-o", f"{built}/", ".", "tool"], source)
            for program in Path(built).iterdir():
                program.rename(BIN / program.name)
        for part in _PARTS:
            (BIN / part).unlink(missing_ok=True)
            (BIN / part).symlink_to("kubernetes")
        _RECORD.write_text(inputs)


def install_debian() -> None:
    """Install the missing Debian packages that the node and the image builds need."""
    check_machine()
    missing = [package for program, package in _DEBIAN.items() if shutil.which(program) is None]
    if missing:
        log_progress(f"installing {', '.join(missing)}")
        _apt("install", "-y", "-qq", "--no-install-recommends", *missing)


def install_object_store() -> Path:
    """Return the path of the S3 server; build it if it is missing.

    Raises:
        ClusterError: Go is missing, or the build failed.
    """
    program = BIN / "versitygw"
    if not program.exists():
        if shutil.which("go") is None:
            raise ClusterError("building the S3 server of the tests needs Go 1.26 or newer: install it")
        BIN.mkdir(parents=True, exist_ok=True)
        log_progress("building versitygw (1 to 4 minutes)")
        _go(["install", "-trimpath", "-ldflags", "-s -w", _OBJECT_STORE], CACHE)
    return program


def unpack_prometheus() -> Path:
    """Return the directory of Debian's `prometheus`, unpacked and not installed, so that no service starts."""
    directory = CACHE / "prometheus"
    if not (directory / "usr/bin/prometheus").exists():
        log_progress("unpacking Prometheus")
        directory.mkdir(parents=True, exist_ok=True)
        _apt("update", "-qq")
        _run(["apt-get", "download", "-qq", "prometheus"], directory)
        (package,) = directory.glob("prometheus_*.deb")
        _run(["dpkg-deb", "-x", str(package), str(directory)], directory)
        package.unlink()
    return directory / "usr/bin"


def _go(arguments: list[str], directory: Path) -> None:
    # A higher GOGC uses more memory, but collects garbage less often.
    environment = {"CGO_ENABLED": "0", "GOBIN": str(BIN), "GOFLAGS": "", "GOGC": "400", "GOWORK": "off"}
    _run(["go", *arguments], directory, environment)


def _apt(*arguments: str) -> None:
    if arguments[0] == "install":
        _apt("update", "-qq")
    _run(["apt-get", *arguments], CACHE, {"DEBIAN_FRONTEND": "noninteractive"})


def _run(command: list[str], directory: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=directory, env=os.environ | (env or {}), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout
