"""Gets the programs of the cluster: Kubernetes and its company from Go modules, the rest from Debian."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from cluster.layout import BIN, CACHE, ClusterError, tell

KUBERNETES = "v1.36.3"
_MODULES = {
    "containerd": "github.com/containerd/containerd/v2/cmd/containerd@v2.3.7",
    "containerd-shim-runc-v2": "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2@v2.3.7",
    "ctr": "github.com/containerd/containerd/v2/cmd/ctr@v2.3.7",
    "coredns": "github.com/coredns/coredns@v1.14.3",
    "helm": "helm.sh/helm/v3/cmd/helm@v3.22.0",
    "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0",
    "versitygw": "github.com/versity/versitygw/cmd/versitygw@v1.8.0",
}
_PARTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
)
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
    """Raise ClusterError where a cluster cannot run, and say what to do instead."""
    instead = "use a cluster of yours: CLUSTER=current REGISTRY=<registry> make demo"
    if sys.platform != "linux":
        raise ClusterError(f"the embedded Kubernetes runs on Linux; {instead}")
    if os.geteuid() != 0:
        raise ClusterError(f"the embedded Kubernetes needs root; run as root, or {instead}")
    if shutil.which("go") is None:
        raise ClusterError(f"the embedded Kubernetes is built with Go 1.26 or newer: install it, or {instead}")


def install_control_plane() -> None:
    """Make the programs that an API server needs, where they are missing."""
    check_machine()
    BIN.mkdir(parents=True, exist_ok=True)
    if not (BIN / "kubernetes").exists():
        tell("building Kubernetes from its Go modules (10 to 15 minutes, once)")
        version = "k8s.io/component-base/version"
        major, minor, _ = KUBERNETES.removeprefix("v").split(".")
        flags = (
            f"-s -w -X {version}.gitVersion={KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
        )
        building = BIN / "kubernetes.part"
        source = Path(__file__).parent / "go"
        _go(["build", "-trimpath", "-ldflags", flags, "-o", str(building), "."], source)
        building.rename(BIN / "kubernetes")
    for part in _PARTS:
        link = BIN / part
        if not link.is_symlink():
            link.symlink_to("kubernetes")
    _install_modules("helm", "kubeconform")


def install_node() -> None:
    """Make the programs that a node needs, where they are missing."""
    check_machine()
    _install_modules("containerd", "containerd-shim-runc-v2", "ctr", "coredns")
    missing = [package for program, package in _DEBIAN.items() if shutil.which(program) is None]
    if missing:
        tell(f"installing {', '.join(missing)}")
        _apt("install", "-y", "-qq", "--no-install-recommends", *missing)


def install_object_store() -> Path:
    """Return the program that speaks S3, built where it is missing."""
    if shutil.which("go") is None and not (BIN / "versitygw").exists():
        raise ClusterError("the S3 server of the tests is built with Go 1.26 or newer: install it")
    BIN.mkdir(parents=True, exist_ok=True)
    _install_modules("versitygw")
    return BIN / "versitygw"


def unpack_prometheus() -> Path:
    """Return the directory with Debian's `prometheus`; it is unpacked, not installed, so no service starts."""
    directory = CACHE / "prometheus"
    if not (directory / "usr/bin/prometheus").exists():
        tell("unpacking Prometheus")
        directory.mkdir(parents=True, exist_ok=True)
        _apt("update", "-qq")
        _run(["apt-get", "download", "-qq", "prometheus"], directory)
        (package,) = directory.glob("prometheus_*.deb")
        _run(["dpkg-deb", "-x", str(package), str(directory)], directory)
        package.unlink()
    return directory / "usr/bin"


def _install_modules(*names: str) -> None:
    for name in names:
        if not (BIN / name).exists():
            tell(f"building {name} (1 to 4 minutes)")
            _go(["install", "-trimpath", "-ldflags", "-s -w", _MODULES[name]], CACHE)


def _go(arguments: list[str], directory: Path) -> None:
    _run(["go", *arguments], directory, {"CGO_ENABLED": "0", "GOBIN": str(BIN), "GOFLAGS": "", "GOWORK": "off"})


def _apt(*arguments: str) -> None:
    if arguments[0] == "install":
        _apt("update", "-qq")
    _run(["apt-get", *arguments], CACHE, {"DEBIAN_FRONTEND": "noninteractive"})


def _run(command: list[str], directory: Path, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, cwd=directory, env=os.environ | (env or {}), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-3000:]}")
