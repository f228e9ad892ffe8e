"""Kubernetes quantities: amounts of cores and memory as texts, such as `500m` and `80Gi`."""

from decimal import Decimal, InvalidOperation
from typing import Annotated

from pydantic import BeforeValidator, Field

from finetune_api.texts import Text

_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"
_MAX_LENGTH = 32
Quantity = Annotated[
    str,
    Text(_PATTERN, "use a number with or without a unit, such as 2, 500m, 512Mi or 3Gi", _MAX_LENGTH),
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    Field(json_schema_extra={"x-kubernetes-int-or-string": True}),
]
"""A quantity that a user writes, as a text or as a whole number."""
StatusQuantity = Annotated[str, Field(pattern=_PATTERN, max_length=_MAX_LENGTH)]
"""A quantity in a status."""
_UNITS = {"": Decimal(1), "m": Decimal("0.001")} | {
    unit + binary: Decimal(1024 if binary else 1000) ** power
    for power, unit in enumerate("KMGTPE", 1)
    for binary in ("", "i")
}
_UNITS["k"] = _UNITS.pop("K")


def build_quantity(amount: float) -> str:
    """Return bytes as a quantity, in whole Mi."""
    return f"{round(amount / 2**20)}Mi"


def parse_quantity(text: str) -> Decimal:
    """Return a quantity as a number: `80Gi` in bytes, `500m` as 0.5.

    Raises:
        ValueError: the text is not a quantity.
    """
    number = text.rstrip("kKMGTPEim")
    try:
        return Decimal(number) * _UNITS[text[len(number) :]]
    except (InvalidOperation, KeyError):
        raise ValueError(f"{text!r} is not a Kubernetes quantity") from None
