"""What the admission policy allows: it checks who adds a reference to a Secret, not who edits an object with one."""

from typing import Any

import pytest
from api.account import render_chart
from cluster.control_plane import Cluster
from escalations.references import build_with_secret, secret_fields
from escalations.scene import MINE, OTHERS, Scene, job, path, server

MERGE = "application/merge-patch+json"


@pytest.mark.parametrize(("plural", "base"), [("finetunejobs", job("named")), ("modelservers", server("named"))])
def test_an_author_may_name_a_readable_secret_in_every_field(scene: Scene, plural: str, base: dict[str, Any]) -> None:
    for field in secret_fields(plural):
        answer = scene.tenant.create(build_with_secret(base, field, MINE), dry_run=True)
        assert answer.code == 201, f"{field}: {answer.message}"


def test_the_refusal_names_the_field_and_the_secret(scene: Scene) -> None:
    answer = scene.tenant.create(build_with_secret(job("named"), "tracking.wandb.secretRef", OTHERS))
    assert answer.code == 403
    assert "spec.tracking.wandb.secretRef: system:serviceaccount:tenant:tenant may not get Secret others" in str(
        answer.body["message"]
    )


@pytest.mark.parametrize(
    ("kind", "manifest", "patch"),
    [
        ("finetunejobs", job("of-another", model={"uri": "hf://org/base", "secretRef": {"name": OTHERS}}), "approved"),
        ("modelservers", server("of-another", auth={"secretRef": {"name": OTHERS}}), "replicas"),
    ],
)
def test_an_author_may_keep_an_existing_reference(
    scene: Scene, kind: str, manifest: dict[str, Any], patch: str
) -> None:
    assert scene.admin.create(manifest).code == 201
    value = True if patch == "approved" else 2
    for body in ({"metadata": {"labels": {"team": "a"}}}, {"spec": {patch: value}}):
        answer = scene.tenant.call("PATCH", path(kind, "of-another"), body, MERGE)
        assert answer.code == 200, answer.message
    assert scene.admin.get(manifest)["spec"][patch] == value


@pytest.mark.parametrize("enabled", [True, False])
def test_an_administrator_may_disable_the_policy(cluster: Cluster, enabled: bool) -> None:
    kinds = [manifest["kind"] for manifest in render_chart(cluster, secretPolicy={"enabled": enabled})]
    assert kinds.count("ValidatingAdmissionPolicy") == kinds.count("ValidatingAdmissionPolicyBinding")
    assert kinds.count("ValidatingAdmissionPolicy") == (2 if enabled else 0)
