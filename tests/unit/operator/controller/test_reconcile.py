"""The status after the API server refused a child."""

from finetune_api.conditions import Reason
from finetune_operator.controller.reconcile import _build_refused_status
from unit.objects import NOW, job


def test_a_refusal_is_about_the_current_generation() -> None:
    manifest = job() | {"kind": "FineTuneJob"}
    manifest["metadata"]["generation"] = 3
    status, _ = _build_refused_status(manifest, (Reason.CREATE_REFUSED, "Job shop-prepare-1: no"), NOW)
    assert status["observedGeneration"] == 3
