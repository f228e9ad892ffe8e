"""The administrator's settings."""

from pathlib import Path

import pytest
from finetune_api.estimate import GpuKind
from finetune_operator.settings import Gpu, read_settings


def test_wrong_settings_name_the_field(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("images: {trainer: a, serving: b}\nresyncSeconds: -1\n")
    with pytest.raises(ValueError, match="resyncSeconds"):
        read_settings(file)
    file.write_text("images: {trainer: a, serving: b}\nsmallStages: {memory: 0}\n")
    with pytest.raises(ValueError, match=r"smallStages\.memory: must be greater than 0"):
        read_settings(file)
    with pytest.raises(ValueError, match="No such file"):
        read_settings(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("selector", "memory"), [({}, "80Gi"), ({"gpu": "old"}, "16Gi"), ({"gpu": "old", "zone": "a"}, "16Gi")]
)
def test_the_first_kind_whose_labels_a_pod_asks_for_is_its_gpu(selector: dict[str, str], memory: str) -> None:
    old = GpuKind(node_selector={"gpu": "old"}, memory="16Gi")
    assert Gpu(kinds=[old, GpuKind(memory="80Gi")], nodeSelector={}).find_kind(selector) == GpuKind(
        node_selector=old.node_selector if memory == "16Gi" else {}, memory=memory
    )
    assert Gpu(kinds=[old], nodeSelector={"gpu": "old"}).find_kind({}) == old
    assert Gpu(kinds=[old]).find_kind({}) is None
