"""Tokens, keys and kubeconfigs of the control plane's users."""

import json
import secrets
import subprocess
from pathlib import Path

from cluster.layout import NODE_NAME

_USERS = {
    "admin": ("admin", "system:masters"),
    "controllers": ("system:kube-controller-manager", "system:masters"),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", "system:node-proxier"),
    "kubelet": (f"system:node:{NODE_NAME}", "system:nodes"),
    "dns": ("dns", "system:masters"),
}
"""User name and group by the name of the kubeconfig."""


def create_credentials(directory: Path) -> None:
    """Write a token for each user and the key that signs service-account tokens to `pki/`, unless they exist."""
    pki = directory / "pki"
    if (pki / "service-account.key").exists():
        return
    lines = []
    for name, (user, group) in _USERS.items():
        token = secrets.token_hex(24)
        (pki / f"{name}.token").write_text(token)
        lines.append(f'{token},{user},{name},"{group}"')
    (pki / "tokens.csv").write_text("\n".join(lines) + "\n")
    key = pki / "service-account.key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)


def write_kubeconfigs(directory: Path, server: str) -> None:
    """Write the administrator's `kubeconfig`, and those of the other users to `kubeconfigs/`."""
    pki = directory / "pki"
    for name in _USERS:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "embedded",
            "clusters": [
                {
                    "name": "embedded",
                    "cluster": {
                        "server": server,
                        "certificate-authority": str(pki / "apiserver.crt"),
                    },
                }
            ],
            "users": [{"name": name, "user": {"token": (pki / f"{name}.token").read_text()}}],
            "contexts": [{"name": "embedded", "context": {"cluster": "embedded", "user": name}}],
        }
        path = directory / "kubeconfig" if name == "admin" else directory / "kubeconfigs" / name
        path.write_text(json.dumps(config, indent=1))
        path.chmod(0o600)
