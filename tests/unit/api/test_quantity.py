"""Kubernetes quantities as numbers."""

from typing import Any

import pytest
from finetune_api.crd import build_crds
from finetune_api.quantity import Quantity, parse_quantity
from pydantic import TypeAdapter, ValidationError


@pytest.mark.parametrize(
    ("quantity", "value"), [("80Gi", 80 * 2**30), ("1.5G", 1.5e9), ("500m", 0.5), ("7", 7.0), ("64Mi", 2**26)]
)
def test_quantities_are_read(quantity: str, value: float) -> None:
    assert parse_quantity(quantity) == value


@pytest.mark.parametrize("text", ["", "Gi", "1Xi", "1ki", "1GiB", "one"])
def test_another_text_is_not_a_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="not a Kubernetes quantity"):
        parse_quantity(text)


def test_a_whole_number_is_a_quantity() -> None:
    assert TypeAdapter[str](Quantity).validate_python(2) == "2"


@pytest.mark.parametrize("value", ["3GB", "-1", -1, 0.5, True, ["1"]])
def test_another_value_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError, match="such as 2, 500m, 512Mi or 3Gi|valid string"):
        TypeAdapter[str](Quantity).validate_python(value)


def test_the_api_server_accepts_a_quantity_as_a_number() -> None:
    spec = build_crds()["modelservers.yaml"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    cpu = spec["properties"]["resources"]["properties"]["cpu"]
    assert cpu["x-kubernetes-int-or-string"]
    assert "type" not in cpu
    assert cpu["x-kubernetes-validations"][0]["rule"].startswith("string(self).matches(")
