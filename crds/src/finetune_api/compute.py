"""The hardware that pods ask for: an allow-list, never a pod template."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from finetune_api.model import ApiModel, Rule
from finetune_api.quantity import Quantity

LabelKey = Annotated[
    str,
    Field(
        pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$",
        max_length=317,
    ),
]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$", max_length=63)]
CONTROL_PLANE = tuple(f"node-role.kubernetes.io/{role}" for role in ("control-plane", "master", "etcd"))
"""Labels and taints of the nodes that hold the cluster itself."""
CONDITIONS = "node.kubernetes.io/"
"""Beginning of the taints by which Kubernetes keeps pods from nodes that are not fit for them."""
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]


def _is_something(name: str) -> Rule:
    """Return the rule that a quantity is more than nothing: a limit of 0 is none for the kubelet."""
    nothing = "^[0.]+[A-Za-z]*$"
    return Rule(
        f"!has(self.{name}) || !self.{name}.matches('{nothing}')",
        f"{name} must be more than 0",
        lambda resources: re.fullmatch(nothing, getattr(resources, name)) is None,
    )


class Resources(ApiModel):
    """What one pod asks for; memory and GPUs are its limit too, idle cores may be used."""

    cpu: Quantity = "2"
    """Cores, as a Kubernetes quantity."""
    memory: Quantity = "8Gi"
    """Memory, as a Kubernetes quantity."""
    gpus: Annotated[int, Field(ge=0, le=16)] = 0
    """GPUs of the kind that the chart's `gpu.resourceName` names; 0 runs on CPUs."""

    rules = (_is_something("cpu"), _is_something("memory"))


class Toleration(ApiModel):
    """A taint that the pods may run in spite of."""

    key: LabelKey
    """Key of the taint."""
    operator: Literal["Exists", "Equal"] = "Exists"
    """Whether any value matches, or only `value`."""
    value: LabelValue | None = None
    """Value of the taint, with operator Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; without it all effects match."""

    rules = (
        Rule(
            "self.operator == 'Exists' ? !has(self.value) : has(self.value)",
            "give value with operator Equal, and only with it",
            lambda toleration: (toleration.operator == "Equal") == (toleration.value is not None),
        ),
    )


class Placement(ApiModel):
    """Resources and where pods may run."""

    resources: Resources = Resources()
    """Cores, memory and GPUs of one pod."""
    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = {}
    """Labels that a node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = []
    """Taints that the pods tolerate."""
    priority_class_name: Name | None = None
    """PriorityClass of the pods; those that begin with `system-` are the cluster's own."""

    # An administrator may allow more for all jobs: these are not rules of a Toleration, which the chart has too.
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.priorityClassName) || !self.priorityClassName.startsWith('system-')",
            "priorityClassName: classes that begin with system- are the cluster's own, choose another",
            lambda placement: not (placement.priority_class_name or "").startswith("system-"),
        ),
        Rule(
            f"!has(self.nodeSelector) || {list(CONTROL_PLANE)}.all(key, !(key in self.nodeSelector))",
            "nodeSelector: the nodes of the control plane run no jobs, choose others",
            lambda placement: placement.node_selector.keys().isdisjoint(CONTROL_PLANE),
        ),
        Rule(
            f"!has(self.tolerations) || self.tolerations.all(one, !(one.key in {list(CONTROL_PLANE)})"
            f" && !one.key.startsWith('{CONDITIONS}'))",
            f"tolerations: the taints of the control plane and those that begin with {CONDITIONS} are the cluster's"
            " own, leave them out",
            lambda placement: (
                not any(one.key in CONTROL_PLANE or one.key.startswith(CONDITIONS) for one in placement.tolerations)
            ),
        ),
    )


class Compute(Placement):
    """The hardware of the training, and of the evaluation after it."""

    queue_name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)] | None = None
    """Kueue's LocalQueue that the training's Job waits in."""
    save_steps: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Optimizer steps between two checkpoints; at most these are lost when a pod goes."""
    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    """Pods that train together, each with `resources`. Several need an output claim that all can mount."""
    processes_per_node: Annotated[int, Field(ge=1, le=16)] | None = None
    """Training processes in a pod; by default one for each GPU, on CPUs one."""
    parallelism: Literal["DDP", "FSDP2", "ZeRO1", "ZeRO2", "ZeRO3"] = "DDP"
    """What each process holds: a copy of the model (DDP), or shards by PyTorch (FSDP2) or DeepSpeed (ZeRO1 to 3)."""

    rules = (
        *Placement.rules,
        Rule(
            "!has(self.processesPerNode) || self.resources.gpus == 0 || self.processesPerNode == self.resources.gpus",
            "processesPerNode is the number of GPUs where there are GPUs: leave it out",
            lambda compute: (
                compute.processes_per_node is None or compute.resources.gpus in (0, compute.processes_per_node)
            ),
        ),
    )

    @property
    def processes_on_node(self) -> int:
        """Training processes in a pod."""
        return self.processes_per_node or max(self.resources.gpus, 1)

    @property
    def processes(self) -> int:
        """Training processes in all pods."""
        return self.nodes * self.processes_on_node
