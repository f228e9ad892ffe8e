"""Which jobs wait for approval, and with which message."""

from typing import Any

import pytest
from finetune_api.conditions import Reason
from finetune_api.estimate import Estimate
from finetune_operator.job.approval import decide_approval
from unit.specs import spec

MEMORY = dict.fromkeys(("total", "weights", "gradients", "optimizer", "activations", "logits", "overhead"), "41984Mi")


def estimate(**changes: Any) -> Estimate:
    figures = {"trainedTokens": 9, "steps": 5, "parameters": 9, "trainableParameters": 1, "memory": MEMORY}
    return Estimate.model_validate(figures | {"gpuHours": 3.2, "cost": 9.6, "currency": "EUR"} | changes)


ON_GPU = {"resources": {"gpus": 1}}
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
        (
            {"maxCost": 99},
            UNKNOWN,
            Reason.WAITING_FOR_APPROVAL,
            "cannot be compared with budget.maxCost: no price; approve it",
        ),
        ({"maxCost": 99}, None, Reason.WAITING_FOR_APPROVAL, "the trainer image reported no estimate"),
        ({"approval": "Manual"}, None, Reason.WAITING_FOR_APPROVAL, "kubectl patch ftj shop -n team --type merge"),
    ],
)
def test_a_job_above_its_budget_or_of_unknown_cost_waits_for_approval(
    budget: dict[str, Any] | None, figures: Estimate | None, reason: Reason, message: str
) -> None:
    approval = decide_approval("shop", "team", spec(budget=budget, compute=ON_GPU), figures)
    assert approval.reason is reason
    assert approval.approved == (reason is Reason.WITHIN_BUDGET)
    assert message in approval.message
    approved = decide_approval("shop", "team", spec(budget=budget, approved=True), figures)
    assert (approved.approved, approved.reason) == (True, Reason.APPROVED_BY_HAND)


def test_a_training_without_a_gpu_says_so() -> None:
    approval = decide_approval("shop", "team", spec(), KNOWN)
    cause = "compute.resources.gpus is 0, so the training runs on CPUs"
    assert approval.message == f"5 steps, 41 GiB of memory a process; {cause}"
