"""Whether a prepared job may ask for GPUs: its estimate against its budget, and a person's word. Pure."""

from dataclasses import dataclass

from finetune_api.conditions import Reason
from finetune_api.estimate import Estimate, describe_estimate
from finetune_api.finetunejob import FineTuneJobSpec

_APPROVAL_PATCH = '{"spec":{"approved":true}}'


@dataclass(frozen=True)
class Verdict:
    """What the condition Approved says."""

    approved: bool
    reason: Reason
    message: str


def judge(job: str, namespace: str, spec: FineTuneJobSpec, estimate: Estimate | None) -> Verdict:
    """Decide about a job by what its preparation has found.

    A person's approval goes before everything. What is not known is never taken to be within a budget.
    """
    figures = describe_estimate(estimate) if estimate else "no budget is set"
    budget = spec.budget
    if spec.approved:
        return Verdict(approved=True, reason=Reason.APPROVED_BY_HAND, message=figures)
    hint = f"approve it with: kubectl patch ftj {job} -n {namespace} --type merge -p '{_APPROVAL_PATCH}'"
    if budget and budget.max_cost is not None:
        if estimate is None or estimate.cost is None:
            why = (estimate.unknown if estimate else None) or "the trainer image gave no estimate"
            message = f"{figures}; budget.maxCost cannot be held against it: {why}; {hint}"
            return Verdict(approved=False, reason=Reason.WAITING_FOR_APPROVAL, message=message)
        if estimate.cost > budget.max_cost:
            message = f"{figures}, above budget.maxCost of {budget.max_cost:.2f} {estimate.currency}; {hint}"
            return Verdict(approved=False, reason=Reason.BUDGET_EXCEEDED, message=message)
    if budget and budget.approval == "Manual":
        message = f"{figures}; {hint}"
        return Verdict(approved=False, reason=Reason.WAITING_FOR_APPROVAL, message=message)
    return Verdict(approved=True, reason=Reason.WITHIN_BUDGET, message=figures)
