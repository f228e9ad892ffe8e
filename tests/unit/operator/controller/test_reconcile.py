"""What is written where the API server refuses."""

from finetune_api.conditions import Reason
from finetune_operator.controller.reconcile import _refuse
from unit.objects import NOW, job


def test_a_refusal_is_about_the_spec_as_it_is_now() -> None:
    manifest = job() | {"kind": "FineTuneJob"}
    manifest["metadata"]["generation"] = 3
    status, _ = _refuse(manifest, (Reason.CREATE_REFUSED, "Job shop-prepare-1: no"), NOW)
    assert status["observedGeneration"] == 3
