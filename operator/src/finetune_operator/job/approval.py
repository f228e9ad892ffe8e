"""Whether a prepared job may request GPUs: compares its estimate with its budget. No I/O."""

from dataclasses import dataclass

from finetune_api.conditions import Reason
from finetune_api.estimate import Estimate, describe_estimate
from finetune_api.finetunejob import FineTuneJobSpec

_APPROVAL_PATCH = '{"spec":{"approved":true}}'


@dataclass(frozen=True)
class Approval:
    """The next state of the condition Approved."""

    approved: bool
    reason: Reason
    message: str


def decide_approval(job: str, namespace: str, spec: FineTuneJobSpec, estimate: Estimate | None) -> Approval:
    """Return whether a job may train, from the estimate of its preparation.

    `spec.approved` overrides the budget. An unknown cost never counts as within a budget.
    """
    on_gpu = spec.compute.resources.gpus > 0
    figures = describe_estimate(estimate, on_gpu=on_gpu) if estimate else "no budget is set"
    budget = spec.budget
    if spec.approved:
        return Approval(approved=True, reason=Reason.APPROVED_BY_HAND, message=figures)
    hint = f"approve it with: kubectl patch ftj {job} -n {namespace} --type merge -p '{_APPROVAL_PATCH}'"
    if budget and budget.max_cost is not None:
        if estimate is None or estimate.cost is None:
            problem = (estimate.unknown if estimate else None) or "the trainer image reported no estimate"
            message = f"{figures}; the cost cannot be compared with budget.maxCost: {problem}; {hint}"
            return Approval(approved=False, reason=Reason.WAITING_FOR_APPROVAL, message=message)
        if estimate.cost > budget.max_cost:
            message = f"{figures}, above budget.maxCost of {budget.max_cost:.2f} {estimate.currency}; {hint}"
            return Approval(approved=False, reason=Reason.BUDGET_EXCEEDED, message=message)
    if budget and budget.approval == "Manual":
        message = f"{figures}; {hint}"
        return Approval(approved=False, reason=Reason.WAITING_FOR_APPROVAL, message=message)
    return Approval(approved=True, reason=Reason.WITHIN_BUDGET, message=figures)
