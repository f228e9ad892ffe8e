"""What a FineTuneJob may cost, and who lets it begin."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.model import ApiModel, Rule

Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
DEFAULT_CURRENCY = "USD"
"""Currency of prices that name none."""
Price = Annotated[float, Field(ge=0, le=1_000_000)]


class Budget(ApiModel):
    """What the job may cost. A job that is held asks for no GPU until `approved` is set."""

    gpu_hour_price: Price | None = None
    """Price of one hour of one GPU; without it the chart's, for the kind of GPU that the job asks for."""
    currency: Currency | None = None
    """Currency of `gpuHourPrice`, as in ISO 4217; without it the chart's."""
    max_cost: Annotated[float, Field(gt=0, le=1_000_000_000)] | None = None
    """Most that the training may cost by its estimate, in the currency of the price; above it the job is held."""
    approval: Literal["Auto", "Manual"] = "Auto"
    """Auto begins what is within the budget; Manual holds every job until it is approved by hand."""

    rules = (
        Rule(
            "!has(self.currency) || has(self.gpuHourPrice)",
            "currency is that of gpuHourPrice: give both, or none",
            lambda budget: budget.currency is None or budget.gpu_hour_price is not None,
        ),
    )
