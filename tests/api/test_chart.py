"""The chart: rendered by the real Helm, admitted by the real API server."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from api.account import list_operator_roles
from cluster.control_plane import Cluster
from finetune_operator.settings import Limit, read_settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "finetune-operator"


def helm(cluster: Cluster, *arguments: str, **values: Any) -> subprocess.CompletedProcess[str]:
    command = [str(cluster.helm), *arguments, "--kube-version=1.36.0", "--values=-"]
    return subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)


def render(cluster: Cluster, release: str = "release", /, **values: Any) -> list[dict[str, Any]]:
    done = helm(cluster, "template", release, str(CHART), "--namespace=system", **values)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def test_all_manifests_are_admitted_in_a_restricted_namespace(cluster: Cluster) -> None:
    cluster.run_kubectl("create", "namespace", "system")
    cluster.run_kubectl("label", "namespace", "system", "pod-security.kubernetes.io/enforce=restricted")
    documents = render(cluster, podLabels={"team": "a"}, gpu={"tolerations": [{"key": "gpu"}]}, crds={"enabled": False})
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    done = cluster.run_kubectl("apply", "--dry-run=server", "--server-side", "-n", "system", "-f", "-", stdin=text)
    assert "deployment.apps/release-finetune-operator" in done
    (deployment,) = [manifest for manifest in documents if manifest["kind"] == "Deployment"]
    template = deployment["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator"}, "spec": template["spec"]}
    pod["spec"]["serviceAccountName"] = "default"
    cluster.run_kubectl("apply", "--dry-run=server", "-n", "system", "-f", "-", stdin=json.dumps(pod))


def test_the_longest_release_name_gives_valid_names(cluster: Cluster) -> None:
    documents = render(cluster, "r" * 53, crds={"enabled": False})
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    done = cluster.run_kubectl("apply", "--dry-run=server", "-n", "default", "-f", "-", stdin=text)
    assert len(done.splitlines()) == len(documents)


def test_the_operator_reads_the_settings_that_the_chart_writes(cluster: Cluster, tmp_path: Path) -> None:
    values = {
        "trainer": {"image": {"repository": "r/t", "tag": "2"}},
        "sources": {"httpsHosts": ["data.example.com", "*.mirror.org"]},
        "gpu": {"resourceName": "amd.com/gpu", "kinds": [{"memory": "192Gi", "hourPrice": 4}]},
        "smallStages": {"cpu": 2, "memory": "512Mi"},
        "limits": {"default": {"gpus": 8, "jobs": 10}, "namespaces": {"team-a": {"gpus": 32}}},
    }
    (config,) = [manifest for manifest in render(cluster, **values) if manifest["kind"] == "ConfigMap"]
    (tmp_path / "settings.yaml").write_text(config["data"]["settings.yaml"])
    settings = read_settings(tmp_path / "settings.yaml")
    assert settings.images.trainer == "r/t:2"
    assert settings.gpu.resource_name == "amd.com/gpu"
    assert settings.sources.https_hosts == ["data.example.com", "*.mirror.org"]
    assert (settings.small_stages.cpu, settings.small_stages.memory) == ("2", "512Mi")
    assert settings.limits.of("team-b") == Limit(gpus=8, jobs=10)
    assert settings.limits.of("team-a") == Limit(gpus=32)
    assert (settings.gpu.kinds[0].memory, settings.gpu.kinds[0].hour_price) == ("192Gi", 4)


def test_an_image_with_a_digest_is_referenced_by_digest(cluster: Cluster) -> None:
    digest = "sha256:" + "0" * 64
    image = {"image": {"repository": "r/x", "tag": "2", "digest": digest}}
    documents = render(cluster, operator=image, trainer=image, serving=image)
    (deployment,) = [manifest for manifest in documents if manifest["kind"] == "Deployment"]
    (config,) = [manifest for manifest in documents if manifest["kind"] == "ConfigMap"]
    images = yaml.safe_load(config["data"]["settings.yaml"])["images"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert {container["image"], images["trainer"], images["serving"]} == {f"r/x@{digest}"}


def test_the_operator_runs_as_non_root_on_a_read_only_file_system(cluster: Cluster) -> None:
    (deployment,) = [manifest for manifest in render(cluster) if manifest["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 65532)
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}


@pytest.mark.parametrize(
    ("enabled", "api_versions", "kinds"),
    [
        ("Auto", ["monitoring.coreos.com/v1"], {"ServiceMonitor", "PodMonitor"}),
        ("Auto", [], set()),
        ("Always", [], {"ServiceMonitor", "PodMonitor"}),
        ("Never", ["monitoring.coreos.com/v1"], set()),
    ],
)
def test_monitors_are_rendered_where_the_prometheus_operator_is_installed(
    cluster: Cluster, enabled: str, api_versions: list[str], kinds: set[str]
) -> None:
    known = [f"--api-versions={version}" for version in api_versions]
    monitoring = {"enabled": enabled, "labels": {"release": "prometheus"}}
    done = helm(cluster, "template", "release", str(CHART), *known, monitoring=monitoring)
    documents = [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]
    monitors = [manifest for manifest in documents if manifest["apiVersion"].startswith("monitoring.coreos.com")]
    assert {monitor["kind"] for monitor in monitors} == kinds
    assert all(monitor["metadata"]["labels"]["release"] == "prometheus" for monitor in monitors)
    for monitor in monitors:
        spec = monitor["spec"]
        ports = {endpoint["port"] for endpoint in spec.get("endpoints", spec.get("podMetricsEndpoints"))}
        assert ports == ({"metrics"} if monitor["kind"] == "ServiceMonitor" else {"http", "metrics"})


def test_the_chart_contains_the_generated_crds(cluster: Cluster) -> None:
    rendered = {
        manifest["metadata"]["name"]: manifest
        for manifest in render(cluster)
        if manifest["kind"] == "CustomResourceDefinition"
    }
    for file in sorted((ROOT / "crds").glob("*.yaml")):
        crd = yaml.safe_load(file.read_text())
        assert rendered[crd["metadata"]["name"]]["spec"] == crd["spec"]
        annotations = rendered[crd["metadata"]["name"]]["metadata"]["annotations"]
        assert annotations == {"helm.sh/resource-policy": "keep"}


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"logLevel": "Loud"}, "logLevel"),
        ({"operator": {"image": {"digest": "sha256:1"}}}, "digest"),
        ({"network": {"blocked": ["metadata"]}}, "blocked"),
        ({"secretPolicy": {"enabled": "no"}}, "secretPolicy"),
        ({"gpu": {"resourceName": "gpu"}}, "resourceName"),
        ({"gpu": {"kinds": [{"tflop": 989}]}}, "tflop"),
        ({"gpu": {"currency": "euro"}}, "currency"),
        ({"artifacts": {"accessMode": "ReadOnlyMany"}}, "accessMode"),
        ({"smallStages": {"memory": "3GB"}}, "smallStages"),
        ({"smallStages": {"gpus": 1}}, "smallStages"),
        ({"replicas": 0}, "replicas"),
        ({"replicas": "2"}, "replicas"),
        ({"resyncSeconds": 0}, "resyncSeconds"),
        ({"limits": {"default": {"gpus": -1}}}, "gpus"),
        ({"limits": {"namespaces": {"team-a": {"jobs": "two"}}}}, "jobs"),
        ({"limits": {"team-a": {"jobs": 2}}}, "team-a"),
        ({"gpu": None}, "gpu"),
        ({"fullnameOverride": "Foo_Bar"}, "fullnameOverride"),
        ({"podLabels": {"app.kubernetes.io/name": "mine"}}, "podLabels"),
    ],
)
def test_wrong_values_are_refused_with_their_name(cluster: Cluster, values: dict[str, Any], field: str) -> None:
    done = helm(cluster, "template", "release", str(CHART), **values)
    assert done.returncode != 0
    assert field in done.stderr


def test_two_operators_run_on_different_nodes_and_update_one_at_a_time(cluster: Cluster) -> None:
    documents = {
        manifest["kind"]: manifest for manifest in render(cluster) if manifest["kind"] != "CustomResourceDefinition"
    }
    deployment, budget = documents["Deployment"]["spec"], documents["PodDisruptionBudget"]["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    labels = deployment["template"]["metadata"]["labels"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    spread = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert [constraint["topologyKey"] for constraint in spread] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]
    assert all(constraint["labelSelector"]["matchLabels"].items() <= labels.items() for constraint in spread)


def test_the_operators_may_write_their_own_lease_only(cluster: Cluster) -> None:
    documents = {manifest["kind"]: manifest for manifest in render(cluster, fullnameOverride="tuner")}
    (container,) = documents["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert {"--namespace=system", "--lease=tuner"} <= set(container["args"])
    assert container["env"][0]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    leases = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    assert documents["Role"]["rules"] == [
        leases | {"verbs": ["create"]},
        leases | {"resourceNames": ["tuner"], "verbs": ["get", "watch", "update"]},
    ]
    assert documents["RoleBinding"]["subjects"] == documents["ClusterRoleBinding"]["subjects"]
    assert documents["RoleBinding"]["roleRef"]["name"] == documents["Role"]["metadata"]["name"]


def test_a_slow_node_has_five_minutes_to_start_an_operator(cluster: Cluster) -> None:
    (deployment,) = [manifest for manifest in render(cluster) if manifest["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 300


def test_no_right_is_a_wildcard_or_touches_secrets(cluster: Cluster) -> None:
    roles = list_operator_roles(render(cluster))
    assert len(roles) == 2
    granted = [value for role in roles for rule in role["rules"] for values in rule.values() for value in values]
    assert not {"*", "secrets", "escalate", "bind", "impersonate", "deletecollection"} & set(granted)


def test_the_operator_may_delete_only_finetunejobs_and_jobs(cluster: Cluster) -> None:
    roles = list_operator_roles(render(cluster))
    rules = [rule for role in roles for rule in role["rules"] if "delete" in rule["verbs"]]
    deleting = [(rule["apiGroups"], rule["resources"]) for rule in rules]
    assert deleting == [(["finetune.dev"], ["finetunejobs"]), (["batch"], ["jobs"])]


def test_who_may_edit_a_namespace_may_write_jobs_and_servers(cluster: Cluster) -> None:
    roles = {
        label.removeprefix("rbac.authorization.k8s.io/aggregate-to-"): manifest["rules"]
        for manifest in render(cluster)
        for label in manifest["metadata"].get("labels", {})
        if manifest["kind"] == "ClusterRole" and label.startswith("rbac.authorization.k8s.io/")
    }
    kinds = {"finetunejobs", "modelservers"}
    assert roles.keys() == {"view", "edit"}
    for name, verbs in (
        ("view", {"get", "list", "watch"}),
        ("edit", {"create", "update", "patch", "delete", "deletecollection"}),
    ):
        (rule,) = roles[name]
        assert (rule["apiGroups"], set(rule["verbs"])) == (["finetune.dev"], verbs)
        assert {resource.removesuffix("/status") for resource in rule["resources"]} == kinds
        assert name == "view" or set(rule["resources"]) == kinds


def test_aggregated_roles_can_be_left_out(cluster: Cluster) -> None:
    documents = render(cluster, aggregatedRoles={"enabled": False})
    roles = [manifest for manifest in documents if manifest["kind"] in ("ClusterRole", "Role")]
    assert roles == list_operator_roles(documents)


def test_the_chart_passes_helm_lint(cluster: Cluster) -> None:
    done = helm(cluster, "lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr
