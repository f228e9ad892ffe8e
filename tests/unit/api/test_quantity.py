"""Kubernetes quantities as numbers."""

import pytest
from finetune_api.quantity import parse_quantity


@pytest.mark.parametrize(
    ("quantity", "value"), [("80Gi", 80 * 2**30), ("1.5G", 1.5e9), ("500m", 0.5), ("7", 7.0), ("64Mi", 2**26)]
)
def test_quantities_are_read(quantity: str, value: float) -> None:
    assert parse_quantity(quantity) == value


@pytest.mark.parametrize("text", ["", "Gi", "1Xi", "1ki", "1GiB", "one"])
def test_another_text_is_not_a_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="not a Kubernetes quantity"):
        parse_quantity(text)
