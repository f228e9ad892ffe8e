"""What pods may ask for."""

import pytest
from finetune_api.compute import Toleration
from pydantic import ValidationError


@pytest.mark.parametrize("key", ["x" * 64, f"{'a' * 254}/x"])
def test_a_key_that_no_node_can_have_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match="key"):
        Toleration(key=key)
