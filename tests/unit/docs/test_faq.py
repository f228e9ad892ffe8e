"""docs/faq.md names the versions of the images, and its manifests are those of the code."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml
from finetune_api.contract.mounts import DEFAULT_CLAIM
from finetune_operator.manifests.pod import USER

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/faq.md").read_text()
MANIFESTS: dict[str, Any] = {
    manifest["kind"]: manifest for manifest in map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
}


def test_the_versions_are_those_of_the_images() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    versions = {package["name"]: package["version"] for package in lock["package"]}
    cuda = ".".join(versions["cuda-toolkit"].split(".")[:2])
    assert f"| trainer | {cuda}, with torch {versions['torch']} " in PAGE
    dockerfile = (ROOT / "serving_image/Dockerfile").read_text()
    base = re.search(r"^ARG BASE=docker.io/(\S+)$", dockerfile, re.MULTILINE)
    assert base
    assert f"`{base[1]}`" in PAGE


def test_the_images_and_the_claim_have_their_names() -> None:
    values = yaml.safe_load((ROOT / "charts/finetune-operator/values.yaml").read_text())
    for image in ("operator", "trainer", "serving"):
        assert f"`{values[image]['image']['repository']}`" in PAGE
    assert f"`{DEFAULT_CLAIM}`" in PAGE


def test_the_pod_writes_as_the_user_of_the_jobs() -> None:
    context = MANIFESTS["Pod"]["spec"]["securityContext"]
    assert {context[name] for name in ("runAsUser", "runAsGroup", "fsGroup")} == {USER}
