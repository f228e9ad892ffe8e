"""What a pod says that cannot mount its volumes."""

import pytest
from finetune_api.conditions import Reason
from finetune_operator.job.volumes import explain_volumes
from finetune_operator.settings import Artifacts


def test_a_missing_object_is_more_important_than_an_unbound_claim() -> None:
    problem = explain_volumes(["ConfigMap a", "PersistentVolumeClaim b"], ["c"], Artifacts())
    assert problem is not None
    assert problem[0] is Reason.VOLUME_NOT_FOUND
    assert problem[1].startswith("missing in the namespace: ConfigMap a, PersistentVolumeClaim b; create it")


@pytest.mark.parametrize(
    ("name", "storage_class"), [("", "the cluster's default storage class"), ("nfs", "the storage class nfs")]
)
def test_the_claim_of_the_operator_says_where_to_set_its_class(name: str, storage_class: str) -> None:
    problem = explain_volumes([], ["finetune-artifacts"], Artifacts(storageClassName=name))
    assert problem is not None
    assert problem[0] is Reason.UNSCHEDULABLE
    assert f"the access mode ReadWriteMany and {storage_class}" in problem[1]
    assert "artifacts.storageClassName" in problem[1]


def test_a_claim_of_a_user_is_named() -> None:
    problem = explain_volumes([], ["models"], Artifacts())
    assert problem == (
        Reason.UNSCHEDULABLE,
        "PersistentVolumeClaim models is not bound to a volume, kubectl describe pvc models has the cause",
    )


def test_bound_volumes_are_no_problem() -> None:
    assert explain_volumes([], [], Artifacts()) is None
