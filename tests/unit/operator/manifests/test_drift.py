"""Whether a child is up to date, and the update that corrects it."""

import copy
from typing import Any

import pytest
from finetune_operator.manifests.drift import add_last_applied_hash, build_update, is_up_to_date

DESIRED: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "name": "bot",
        "namespace": "team",
        "labels": {"finetune.dev/server": "bot"},
        "ownerReferences": [{"kind": "ModelServer", "name": "bot", "uid": "1", "controller": True}],
    },
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"finetune.dev/server": "bot"}},
        "template": {
            "metadata": {"labels": {"finetune.dev/server": "bot"}},
            "spec": {
                "nodeSelector": {},
                "tolerations": [],
                "containers": [{"name": "server", "resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}}}],
                "volumes": [{"name": "scratch", "emptyDir": {}}],
            },
        },
    },
}


def live() -> dict[str, Any]:
    """Return the child as the API server returns it: with defaults and normalized quantities."""
    made = copy.deepcopy(add_last_applied_hash(DESIRED))
    made["metadata"] |= {"uid": "9", "resourceVersion": "7", "generation": 1, "finalizers": ["somebody/else"]}
    made["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "1"
    pod = made["spec"]["template"]["spec"]
    made["spec"]["progressDeadlineSeconds"] = 600
    del pod["nodeSelector"], pod["tolerations"]
    pod["containers"][0]["resources"]["requests"] = {"cpu": "1", "memory": "1Gi"}
    pod["containers"][0]["imagePullPolicy"] = "IfNotPresent"
    return made


def test_a_child_with_the_api_servers_defaults_is_up_to_date() -> None:
    assert is_up_to_date(DESIRED, live())


@pytest.mark.parametrize(
    "edit",
    [
        lambda child: child["spec"].update(replicas=0),
        lambda child: child["spec"]["template"]["spec"]["containers"].append({"name": "miner"}),
        lambda child: child["spec"]["template"]["spec"].update(nodeSelector={"gpu": "no"}),
        lambda child: child["spec"]["template"]["spec"].update(tolerations=[{"key": "any"}]),
        lambda child: child["spec"]["template"]["spec"]["containers"][0].update(name="other"),
        lambda child: child["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"].update(cpu="2"),
        lambda child: child["spec"]["selector"]["matchLabels"].update(more="y"),
        lambda child: child["spec"].pop("template"),
        lambda child: child["metadata"]["labels"].clear(),
        lambda child: child["metadata"]["ownerReferences"].clear(),
        lambda child: child["metadata"]["annotations"].clear(),
    ],
)
def test_an_edited_child_is_updated(edit: Any) -> None:
    edited = live()
    edit(edited)
    assert not is_up_to_date(DESIRED, edited)
    assert is_up_to_date(DESIRED, build_update(DESIRED, edited))


def test_a_field_that_is_no_longer_desired_makes_the_child_outdated() -> None:
    fewer = copy.deepcopy(DESIRED)
    del fewer["spec"]["template"]["spec"]["volumes"]
    assert not is_up_to_date(fewer, live())
    assert "volumes" not in build_update(fewer, live())["spec"]["template"]["spec"]


def test_an_update_names_the_live_version_and_keeps_additions() -> None:
    restarted = live()
    restarted["spec"]["template"]["metadata"]["annotations"] = {"kubectl.kubernetes.io/restartedAt": "now"}
    autoscaled = copy.deepcopy(DESIRED)
    del autoscaled["spec"]["replicas"]
    update = build_update(autoscaled, restarted)
    assert (update["metadata"]["uid"], update["metadata"]["resourceVersion"]) == ("9", "7")
    assert update["metadata"]["finalizers"] == ["somebody/else"]
    assert update["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    assert update["spec"]["replicas"] == 2
    assert update["spec"]["template"]["metadata"]["annotations"] == {"kubectl.kubernetes.io/restartedAt": "now"}
