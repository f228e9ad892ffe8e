"""The kinds of children that the operator recreates after a deletion: all but Jobs and the artifacts claim."""

from api.drift import Child, add, replace

# A narrowed selector matches no pod, although it still contains all of our labels: the operator must restore it.
OTHER_SELECTOR = {"matchLabels": {"app": "other"}}
# PodSecurity admits this container: a refusal would look like a fault of the operator.
EXTRA_CONTAINER = {
    "name": "other",
    "image": "other:1",
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
}
POD = "/spec/template/spec"
CHILDREN = {
    "Deployment": Child(
        "Deployment",
        edits={
            "image": replace(f"{POD}/containers/0/image", "other:1"),
            "replicas": replace("/spec/replicas", 3),
            "container added": add(f"{POD}/containers/-", EXTRA_CONTAINER),
            "argument added": add(f"{POD}/containers/0/args/-", "--other"),
            "probe removed": [{"op": "remove", "path": f"{POD}/containers/0/readinessProbe"}],
        },
        foreign={
            "spec": {
                "replicas": 0,
                "selector": OTHER_SELECTOR,
                "template": {
                    "metadata": {"labels": {"app": "other"}},
                    "spec": {"containers": [{"name": "other", "image": "other:1"}]},
                },
            }
        },
    ),
    "Service": Child(
        "Service",
        edits={
            "port": replace("/spec/ports/0/targetPort", 22),
            "port added": add("/spec/ports/-", {"name": "other", "port": 81}),
            "selector narrowed": add("/spec/selector/other", "y"),
        },
        foreign={"spec": {"ports": [{"port": 1}]}},
    ),
    "routes": Child(
        "ConfigMap",
        edits={
            "routes": replace("/data/routes.json", '{"routes": []}'),
        },
        foreign={"data": {"mine": "x"}},
    ),
    "PodDisruptionBudget": Child(
        "PodDisruptionBudget",
        edits={
            "allowance": replace("/spec/maxUnavailable", 2),
            "selector narrowed": add("/spec/selector/matchLabels/other", "y"),
        },
        foreign={"spec": {"maxUnavailable": 0, "selector": OTHER_SELECTOR}},
    ),
    "NetworkPolicy": Child(
        "NetworkPolicy",
        edits={
            "port": replace("/spec/ingress/0/ports/0/port", 22),
            "rule added": add("/spec/ingress/-", {}),
            "selector narrowed": add("/spec/podSelector/matchLabels/other", "y"),
        },
        foreign={"spec": {"podSelector": OTHER_SELECTOR, "policyTypes": ["Ingress"]}},
    ),
    "HorizontalPodAutoscaler": Child(
        "HorizontalPodAutoscaler",
        edits={
            "maximum": replace("/spec/maxReplicas", 64),
            "target": replace("/spec/metrics/0/pods/target/averageValue", "999"),
        },
        foreign={
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"},
                "maxReplicas": 2,
            }
        },
        spec={"autoscaling": {"maxReplicas": 4}},
    ),
    "ModelServer": Child(
        "ModelServer",
        edits={"adapters": replace("/spec/lora/maxRank", 256)},
        foreign={"spec": {"model": {"uri": "pvc://models/other"}}},
        owner="FineTuneJob",
        spec={"serving": {"modelName": "bot", "template": {"lora": {"maxRank": 16}}}},
    ),
    "training": Child(
        "Service",
        edits={
            "selector": replace("/spec/selector/finetune.dev~1stage", "Prepare"),
            "selector narrowed": add("/spec/selector/other", "y"),
            "readiness": replace("/spec/publishNotReadyAddresses", value=False),
        },
        foreign={"spec": {"ports": [{"port": 1}]}},
        owner="FineTuneJob",
        spec={"compute": {"nodes": 2}},
        stage="Train",
    ),
}
"""By kind or role. Each test creates an owner for its child."""
EDITS = [(kind, edit) for kind, child in CHILDREN.items() for edit in child.edits]
