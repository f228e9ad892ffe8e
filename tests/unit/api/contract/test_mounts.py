"""Where a pod finds what is mounted."""

from pathlib import Path

import pytest
from finetune_api.contract.mounts import path_of


def test_mounted_uris_have_a_path_and_fetched_ones_have_none() -> None:
    assert path_of("pvc://claim/a") == Path("/claims/claim/a")
    assert path_of("configmap://data/x.jsonl") == Path("/configmaps/data/x.jsonl")
    assert path_of("pvc://claim/a", Path("/tmp/pod")) == Path("/tmp/pod/claims/claim/a")
    with pytest.raises(ValueError, match="not mounted"):
        path_of("hf://org/name")
