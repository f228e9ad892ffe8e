"""What a structural schema can say."""

import pytest
from finetune_api.schema import structural_schema
from pydantic import BaseModel


def test_what_a_structural_schema_cannot_say_is_an_error() -> None:
    class Union(BaseModel):
        value: int | str

    with pytest.raises(ValueError, match="union"):
        structural_schema(Union)
