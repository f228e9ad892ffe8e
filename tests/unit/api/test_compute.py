"""What pods may ask for."""

import pytest
from finetune_api.compute import Toleration
from pydantic import ValidationError


@pytest.mark.parametrize("key", ["x" * 64, f"{'a' * 254}/x"])
def test_a_key_longer_than_that_of_a_label_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match="key"):
        Toleration(key=key)
