"""The inputs of the fuzz tests."""

import pytest
from fuzz.mutations import SPECS, build_base
from fuzz.schemas import ABSENT, get_at, list_nodes, read_schema


@pytest.mark.parametrize("kind", SPECS)
def test_every_field_is_set_in_a_valid_spec(kind: str) -> None:
    paths = [node.path for node in list_nodes(read_schema(kind, "spec"))]
    assert len(paths) > 50
    assert not [path for path in paths if get_at(build_base(kind, path), path) is ABSENT]
