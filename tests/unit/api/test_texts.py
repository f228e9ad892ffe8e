"""Texts that must match a pattern."""

from typing import Annotated, Any

import pytest
from finetune_api.crd import build_crds
from finetune_api.texts import Text
from pydantic import TypeAdapter, ValidationError

CODE = TypeAdapter[str](Annotated[str, Text(r"^[a-z]+$", "use lowercase letters, such as abc", 4)])


def test_a_text_that_matches_is_accepted() -> None:
    assert CODE.validate_python("abc") == "abc"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ABC", "use lowercase letters, such as abc"),
        ("abc\n", "use lowercase letters, such as abc"),
        ("abcde", "at most 4 characters"),
        (5, "valid string"),
    ],
)
def test_another_text_is_refused_with_an_example(text: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CODE.validate_python(text)


def test_no_error_about_a_spec_shows_a_regular_expression() -> None:
    def list_patterns(schema: dict[str, Any]) -> list[str]:
        parts = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
        own = [schema["pattern"]] if "pattern" in schema else []
        return own + [pattern for part in parts if isinstance(part, dict) for pattern in list_patterns(part)]

    for crd in build_crds().values():
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        assert list_patterns(schema["properties"]["spec"]) == []
