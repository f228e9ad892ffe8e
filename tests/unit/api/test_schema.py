"""What a structural schema can say."""

import pytest
from finetune_api.schema import structural_schema
from pydantic import BaseModel


def test_a_union_of_types_is_refused() -> None:
    class Union(BaseModel):
        value: int | str

    with pytest.raises(ValueError, match="union"):
        structural_schema(Union)
