"""Where what was trained may lie."""

import json

import pytest
from finetune_api.contract.reports import parse_report
from unit.pod_reports import TRAINED


@pytest.mark.parametrize(
    "uri", ["", "nonsense", "file:///etc/passwd", "hf://org/name", "pvc://out", "pvc://out/../secret", "pvc://out/a\n"]
)
def test_an_artifact_lies_on_a_claim(uri: str) -> None:
    artifact = TRAINED["artifact"] | {"uri": uri}
    assert parse_report(json.dumps(TRAINED | {"artifact": artifact})) is None
