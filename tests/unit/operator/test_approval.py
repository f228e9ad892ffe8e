"""Which jobs are held for their budget, and what a person then reads."""

from typing import Any

import pytest
from finetune_api.conditions import Reason
from finetune_api.estimate import Estimate, GpuKind
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.jobfile import JobFile
from finetune_api.jobstatus import FineTuneJobStatus
from finetune_operator.approval import judge
from finetune_operator.manifests.names import stage_job_name
from finetune_operator.observe import Stage
from finetune_operator.settings import Gpu
from finetune_operator.views import JobView

MEMORY = dict.fromkeys(("total", "weights", "gradients", "optimizer", "activations", "logits", "overhead"), "41984Mi")
SPEC = {
    "model": {"uri": "pvc://models/base"},
    "dataset": {"train": {"uri": "pvc://data/x"}},
    "method": {"sft": {}},
    "adapter": {"lora": {}},
}


def spec(**changes: Any) -> FineTuneJobSpec:
    return FineTuneJobSpec.model_validate(SPEC | changes)


def estimate(**changes: Any) -> Estimate:
    figures = {"trainedTokens": 9, "steps": 5, "parameters": 9, "trainableParameters": 1, "memory": MEMORY}
    return Estimate.model_validate(figures | {"gpuHours": 3.2, "cost": 9.6, "currency": "EUR"} | changes)


KNOWN, UNKNOWN = estimate(), estimate(cost=None, currency=None, unknown="no price")


@pytest.mark.parametrize(
    ("budget", "figures", "reason", "message"),
    [
        (None, KNOWN, Reason.WITHIN_BUDGET, "5 steps, 3.2 GPU hours, 9.60 EUR, 41 GiB of memory a GPU"),
        (None, None, Reason.WITHIN_BUDGET, "no budget is set"),
        ({"maxCost": 9.6}, KNOWN, Reason.WITHIN_BUDGET, "9.60 EUR"),
        ({"maxCost": 9.5}, KNOWN, Reason.BUDGET_EXCEEDED, "above budget.maxCost of 9.50 EUR; approve it with: kubectl"),
        ({"maxCost": 9.5, "approval": "Manual"}, KNOWN, Reason.BUDGET_EXCEEDED, "above budget.maxCost"),
        ({"maxCost": 99, "approval": "Manual"}, KNOWN, Reason.WAITING_FOR_APPROVAL, "approve it with: kubectl patch"),
        ({"maxCost": 99}, UNKNOWN, Reason.WAITING_FOR_APPROVAL, "cannot be held against it: no price; approve it"),
        ({"maxCost": 99}, None, Reason.WAITING_FOR_APPROVAL, "the trainer image gave no estimate"),
        ({"approval": "Manual"}, None, Reason.WAITING_FOR_APPROVAL, "kubectl patch ftj shop -n team --type merge"),
    ],
)
def test_what_is_beyond_the_budget_or_not_known_is_held(
    budget: dict[str, Any] | None, figures: Estimate | None, reason: Reason, message: str
) -> None:
    verdict = judge("shop", "team", spec(budget=budget), figures)
    assert verdict.reason is reason
    assert verdict.approved == (reason is Reason.WITHIN_BUDGET)
    assert message in verdict.message
    approved = judge("shop", "team", spec(budget=budget, approved=True), figures)
    assert (approved.approved, approved.reason) == (True, Reason.APPROVED_BY_HAND)


def test_approving_changes_neither_the_names_of_children_nor_what_the_pods_read() -> None:
    held, approved = spec(budget={"maxCost": 1}), spec(budget={"maxCost": 1}, approved=True)
    views = [JobView("shop", "team", "u", 1, one, "", FineTuneJobStatus()) for one in (held, approved)]
    assert len({stage_job_name(view, Stage.TRAIN, 1) for view in views}) == 1
    assert JobFile("shop", "u", held).to_json() == JobFile("shop", "u", approved).to_json()


@pytest.mark.parametrize(
    ("selector", "memory"), [({}, "80Gi"), ({"gpu": "old"}, "16Gi"), ({"gpu": "old", "zone": "a"}, "16Gi")]
)
def test_the_first_kind_whose_labels_a_pod_asks_for_is_its_gpu(selector: dict[str, str], memory: str) -> None:
    old = GpuKind(node_selector={"gpu": "old"}, memory="16Gi")
    assert Gpu(kinds=[old, GpuKind(memory="80Gi")], nodeSelector={}).find_kind(selector) == GpuKind(
        node_selector=old.node_selector if memory == "16Gi" else {}, memory=memory
    )
    assert Gpu(kinds=[old], nodeSelector={"gpu": "old"}).find_kind({}) == old
    assert Gpu(kinds=[old]).find_kind({}) is None
