"""Budget and approval of a FineTuneJob."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.model import ApiModel, Rule
from finetune_api.texts import Text

Currency = Annotated[str, Text(r"^[A-Z]{3}$", "use an ISO 4217 code, such as EUR", 3)]
DEFAULT_CURRENCY = "USD"
"""Currency of prices that name none."""
Price = Annotated[float, Field(ge=0, le=1_000_000)]


class Budget(ApiModel):
    """Limit on the cost of the training. A job that waits for approval requests no GPU until `approved` is set."""

    gpu_hour_price: Price | None = None
    """Price of one GPU hour. Default: the chart's price for the kind of GPU that the job requests."""
    currency: Currency | None = None
    """Currency of `gpuHourPrice`, as an ISO 4217 code. Default: the chart's currency."""
    max_cost: Annotated[float, Field(gt=0, le=1_000_000_000)] | None = None
    """Maximum estimated cost of the training, in the currency of the price. Above it the job waits for approval.
    Default: no limit."""
    approval: Literal["Auto", "Manual"] = "Auto"
    """`Auto` starts a job that is within its budget; `Manual` always waits until `approved` is set."""

    rules = (
        Rule(
            "!has(self.currency) || has(self.gpuHourPrice)",
            "currency is the currency of gpuHourPrice: set gpuHourPrice too, or leave currency out",
            lambda budget: budget.currency is None or budget.gpu_hour_price is not None,
        ),
    )
