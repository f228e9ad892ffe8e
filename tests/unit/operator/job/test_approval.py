"""Which jobs are held for their budget, and what a person then reads."""

from typing import Any

import pytest
from finetune_api.conditions import Reason
from finetune_api.estimate import Estimate
from finetune_operator.job.approval import judge
from unit.specs import spec

MEMORY = dict.fromkeys(("total", "weights", "gradients", "optimizer", "activations", "logits", "overhead"), "41984Mi")


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
def test_a_job_beyond_its_budget_or_of_unknown_cost_is_held(
    budget: dict[str, Any] | None, figures: Estimate | None, reason: Reason, message: str
) -> None:
    verdict = judge("shop", "team", spec(budget=budget), figures)
    assert verdict.reason is reason
    assert verdict.approved == (reason is Reason.WITHIN_BUDGET)
    assert message in verdict.message
    approved = judge("shop", "team", spec(budget=budget, approved=True), figures)
    assert (approved.approved, approved.reason) == (True, Reason.APPROVED_BY_HAND)
