"""Compute resources and placement of pods: a fixed list of fields, not a pod template."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from finetune_api.model import ApiModel, Rule
from finetune_api.quantity import Quantity
from finetune_api.references import ObjectName
from finetune_api.texts import Text

LabelKey = Annotated[
    str,
    Text(
        r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$",
        "use a label key of Kubernetes, such as pool or nvidia.com/gpu.product",
        317,
    ),
]
LabelValue = Annotated[
    str,
    Text(
        r"^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$",
        "use letters and digits, with dots, dashes or underscores inside, such as NVIDIA-H200",
        63,
    ),
]
_CONTROL_PLANE_KEYS = tuple(f"node-role.kubernetes.io/{role}" for role in ("control-plane", "master", "etcd"))
"""Label keys and taint keys of control plane nodes."""
_NODE_CONDITION_TAINTS = "node.kubernetes.io/"
"""Prefix of the taints that Kubernetes sets on unhealthy or cordoned nodes."""
Name = Annotated[
    str,
    Text(
        r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        "use lowercase letters and digits, with dots or dashes inside, such as batch-low",
        253,
    ),
]


def _positive(name: str) -> Rule:
    """Return the rule that a quantity is greater than 0: the kubelet treats a limit of 0 as no limit."""
    zero = "^[0.]+[A-Za-z]*$"
    return Rule(
        f"!has(self.{name}) || !string(self.{name}).matches('{zero}')",
        f"{name} must be greater than 0",
        lambda resources: re.fullmatch(zero, getattr(resources, name)) is None,
    )


class Resources(ApiModel):
    """Resource requests of one pod. Memory and GPUs are also its limits; CPU has no limit."""

    cpu: Quantity = "2"
    """CPU cores of a pod: a number or a Kubernetes quantity, such as 2 or `500m`."""
    memory: Quantity = "8Gi"
    """Memory of a pod, as a Kubernetes quantity, such as `8Gi`."""
    gpus: Annotated[int, Field(ge=0, le=16)] = 0
    """Number of GPUs of a pod. `gpu.resourceName` of the chart names their resource. With 0 the pod runs on CPUs."""

    rules = (_positive("cpu"), _positive("memory"))


class Toleration(ApiModel):
    """A taint that the pods tolerate."""

    key: LabelKey
    """Key of the taint."""
    operator: Literal["Exists", "Equal"] = "Exists"
    """`Exists` matches any value of the taint, `Equal` only `value`."""
    value: LabelValue | None = None
    """Value of the taint. Required with operator `Equal`, not allowed otherwise."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint. Default: all effects match."""

    rules = (
        Rule(
            "self.operator == 'Exists' ? !has(self.value) : has(self.value)",
            "set value if operator is Equal, and leave it out otherwise",
            lambda toleration: (toleration.operator == "Equal") == (toleration.value is not None),
        ),
    )


class Placement(ApiModel):
    """Resources of pods and the nodes that they may run on."""

    resources: Resources = Resources()
    """CPU, memory and GPUs that one pod requests, directly in `cpu`, `memory` and `gpus`. Memory and GPUs are also its
    limits; CPU has no limit."""
    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = {}
    """Labels that a node must have to run the pods. Labels of control plane nodes are not allowed."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = []
    """Taints that the pods tolerate. Taints of control plane nodes and node conditions are not allowed."""
    priority_class_name: Name | None = None
    """PriorityClass of the pods. Names that begin with `system-` are not allowed. Default: the cluster's default."""

    # Not rules of Toleration: the chart uses that type as well, and an administrator may tolerate any taint.
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.priorityClassName) || !self.priorityClassName.startsWith('system-')",
            "priorityClassName: classes that begin with system- are reserved for the cluster, choose another",
            lambda placement: not (placement.priority_class_name or "").startswith("system-"),
        ),
        Rule(
            f"!has(self.nodeSelector) || {list(_CONTROL_PLANE_KEYS)}.all(key, !(key in self.nodeSelector))",
            "nodeSelector: control plane nodes cannot be selected, choose other labels",
            lambda placement: placement.node_selector.keys().isdisjoint(_CONTROL_PLANE_KEYS),
        ),
        Rule(
            f"!has(self.tolerations) || self.tolerations.all(toleration,"
            f" !(toleration.key in {list(_CONTROL_PLANE_KEYS)})"
            f" && !toleration.key.startsWith('{_NODE_CONDITION_TAINTS}'))",
            f"tolerations: taints of control plane nodes and taints that begin with {_NODE_CONDITION_TAINTS}"
            " cannot be tolerated, leave them out",
            lambda placement: (
                not any(
                    toleration.key in _CONTROL_PLANE_KEYS or toleration.key.startswith(_NODE_CONDITION_TAINTS)
                    for toleration in placement.tolerations
                )
            ),
        ),
    )


class Compute(Placement):
    """Resources and placement of the training pods, and of the evaluation pod."""

    queue_name: ObjectName | None = None
    """Kueue LocalQueue to which the training Job is submitted. Default: none, and Kueue is not used."""
    save_steps: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Number of optimizer steps between two checkpoints. A lost pod loses at most this many steps."""
    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of pods that train together, each with `resources`. With more than one, every node must be able to mount
    the output claim (ReadWriteMany)."""
    processes_per_node: Annotated[int, Field(ge=1, le=16)] | None = None
    """Number of training processes in a pod. Default: one per GPU; one on CPUs."""
    parallelism: Literal["DDP", "FSDP2", "ZeRO1", "ZeRO2", "ZeRO3"] = "DDP"
    """How the model is distributed over the processes: a copy in each (`DDP`), or sharded by PyTorch (`FSDP2`) or
    DeepSpeed (`ZeRO1` to `ZeRO3`). Sharding needs GPUs."""

    rules = (
        *Placement.rules,
        Rule(
            "!has(self.processesPerNode) || self.resources.gpus == 0 || self.processesPerNode == self.resources.gpus",
            "processesPerNode must be the number of GPUs if there are GPUs: leave it out",
            lambda compute: (
                compute.processes_per_node is None or compute.resources.gpus in (0, compute.processes_per_node)
            ),
        ),
    )

    @property
    def processes_on_node(self) -> int:
        """Number of training processes in a pod."""
        return self.processes_per_node or max(self.resources.gpus, 1)

    @property
    def processes(self) -> int:
        """Number of training processes in all pods."""
        return self.nodes * self.processes_on_node
