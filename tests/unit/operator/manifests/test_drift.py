"""Whether a child is as it should be, and what mends it."""

import copy
from typing import Any

import pytest
from finetune_operator.manifests.drift import build_update, is_as_wanted, seal

WANTED: dict[str, Any] = {
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
    """Return the child as the API server has it: with defaults, and quantities in its own words."""
    made = copy.deepcopy(seal(WANTED))
    made["metadata"] |= {"uid": "9", "resourceVersion": "7", "generation": 1, "finalizers": ["somebody/else"]}
    made["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "1"
    pod = made["spec"]["template"]["spec"]
    made["spec"]["progressDeadlineSeconds"] = 600
    del pod["nodeSelector"], pod["tolerations"]
    pod["containers"][0]["resources"]["requests"] = {"cpu": "1", "memory": "1Gi"}
    pod["containers"][0]["imagePullPolicy"] = "IfNotPresent"
    return made


def test_what_the_api_server_makes_of_a_child_is_as_wanted() -> None:
    assert is_as_wanted(WANTED, live())


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
def test_what_somebody_changed_is_mended(edit: Any) -> None:
    edited = live()
    edit(edited)
    assert not is_as_wanted(WANTED, edited)
    assert is_as_wanted(WANTED, build_update(WANTED, edited))


def test_a_new_wish_is_seen_though_the_old_child_says_all_of_it() -> None:
    fewer = copy.deepcopy(WANTED)
    del fewer["spec"]["template"]["spec"]["volumes"]
    assert not is_as_wanted(fewer, live())
    assert "volumes" not in build_update(fewer, live())["spec"]["template"]["spec"]


def test_an_update_holds_for_one_version_and_leaves_what_others_added() -> None:
    restarted = live()
    restarted["spec"]["template"]["metadata"]["annotations"] = {"kubectl.kubernetes.io/restartedAt": "now"}
    autoscaled = copy.deepcopy(WANTED)
    del autoscaled["spec"]["replicas"]
    update = build_update(autoscaled, restarted)
    assert (update["metadata"]["uid"], update["metadata"]["resourceVersion"]) == ("9", "7")
    assert update["metadata"]["finalizers"] == ["somebody/else"]
    assert update["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    assert update["spec"]["replicas"] == 2
    assert update["spec"]["template"]["metadata"]["annotations"] == {"kubectl.kubernetes.io/restartedAt": "now"}
