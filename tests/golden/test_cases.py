"""The files of the cases: how they are expanded and rewritten."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from golden.cases import GOLDEN, LIKE, Cases

POD = {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "main", "image": "trainer:1"}]}}


@pytest.fixture
def cases(tmp_path: Path) -> Cases:
    _write(tmp_path / "bases" / "new-job.yaml", "metadata: {name: shop, uid: '1'}\nspec: {model: {uri: base}}\n")
    _write(tmp_path / "bases" / "old-job.yaml", "like: new-job\nstatus: {stage: Train, conditions: [{type: Ready}]}\n")
    _write(tmp_path / "bases" / "pair.yaml", "parent: {like: old-job}\n")
    _write(tmp_path / "shapes" / "pod.yaml", "case: trains\n---\nkind: Pod\n")
    _write(tmp_path / "trains.yaml", "# It trains.\njob: {like: old-job, spec: {model: null}}\n")
    return Cases(tmp_path)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def _decide(observed: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    status = observed["job"]["status"] | {"stage": "Evaluate"}
    return [POD, POD | {"metadata": None}], {"status": status, "events": ["Normal"], "againAfter": None}


def test_like_gives_the_base_with_changes(cases: Cases) -> None:
    status = {"stage": "Train", "conditions": [{"type": "Ready"}]}
    job = {"metadata": {"name": "shop", "uid": "1"}, "spec": {}, "status": status}
    assert cases.read_observed("trains") == {"job": job}


def test_like_within_a_change_replaces_the_value(cases: Cases, tmp_path: Path) -> None:
    _write(tmp_path / "other.yaml", "like: pair\nparent: {like: new-job}\nothers: [{like: new-job, spec: null}]\n")
    metadata = {"name": "shop", "uid": "1"}
    assert cases.read_observed("other") == {
        "parent": {"metadata": metadata, "spec": {"model": {"uri": "base"}}},
        "others": [{"metadata": metadata}],
    }


def test_a_mapping_without_like_is_unchanged(cases: Cases, tmp_path: Path) -> None:
    _write(tmp_path / "other.yaml", "job: {a: null, exactly: {b: null}}\nserver: null\n")
    assert cases.read_observed("other") == {"job": {"a": None, "exactly": {"b": None}}, "server": None}


def test_observed_worlds_are_independent_copies(cases: Cases) -> None:
    cases.read_observed("trains")["job"]["metadata"]["name"] = "other"
    assert cases.read_observed("trains")["job"]["metadata"]["name"] == "shop"


def test_an_outcome_is_written_as_a_difference(cases: Cases, tmp_path: Path) -> None:
    cases.rewrite(_decide)
    text = (tmp_path / "trains.yaml").read_text()
    assert text == (
        "# It trains.\njob: {like: old-job, spec: {model: null}}\n---\n"
        "status: {stage: Evaluate}\nevents: [Normal]\nchildren:\n- like: pod\n"
        "- {like: pod, metadata: {exactly: null}}\n"
    )
    assert yaml.safe_load((tmp_path / "shapes" / "pod.yaml").read_text().split("---")[1]) == POD
    for reader in (cases, Cases(tmp_path)):
        assert reader.read_expected("trains") == _decide(reader.read_observed("trains"))


def test_a_second_rewrite_changes_nothing(cases: Cases, tmp_path: Path) -> None:
    cases.rewrite(_decide)
    before = {path: path.read_text() for path in tmp_path.rglob("*.yaml")}
    cases.rewrite(_decide)
    Cases(tmp_path).rewrite(_decide)
    assert {path: path.read_text() for path in tmp_path.rglob("*.yaml")} == before


def test_a_shape_follows_its_case(cases: Cases, tmp_path: Path) -> None:
    cases.rewrite(_decide)
    newer = POD | {"spec": {"containers": [{"name": "main", "image": "trainer:2"}]}}
    before = (tmp_path / "trains.yaml").read_text()
    cases.rewrite(lambda observed: ([newer, newer | {"metadata": None}], _decide(observed)[1]))
    assert (tmp_path / "trains.yaml").read_text() == before
    assert "trainer:2" in (tmp_path / "shapes" / "pod.yaml").read_text()


def test_a_child_without_a_shape_is_written_in_full(cases: Cases) -> None:
    claim = {"kind": "PersistentVolumeClaim", "spec": {}}
    cases.rewrite(lambda observed: ([POD, claim], _decide(observed)[1]))
    assert cases.read_expected("trains")[0] == [POD, claim]


def test_null_in_an_outcome_is_kept(cases: Cases) -> None:
    outcome = {"status": {"stage": None, "of": {"job": None}}, "events": None, "againAfter": None, "delete": None}
    cases.rewrite(lambda _: ([POD], outcome))
    assert cases.read_expected("trains") == ([POD], outcome)


def test_nothing_is_written_when_a_case_fails(cases: Cases, tmp_path: Path) -> None:
    cases.rewrite(_decide)
    _write(tmp_path / "broken.yaml", "job: {}\n")
    before = (tmp_path / "trains.yaml").read_text()
    with pytest.raises(KeyError):
        cases.rewrite(lambda observed: ([], {"status": observed["job"]["status"]}))
    assert (tmp_path / "trains.yaml").read_text() == before


def test_a_case_without_an_outcome_says_how_to_write_it(cases: Cases) -> None:
    with pytest.raises(ValueError, match="trains.yaml.*--rewrite-golden"):
        cases.read_expected("trains")


def test_a_shape_without_its_child_is_reported(cases: Cases) -> None:
    with pytest.raises(ValueError, match=r"pod.yaml: trains has no Pod any more"):
        cases.rewrite(lambda observed: ([], _decide(observed)[1]))


def test_every_base_and_shape_is_used() -> None:
    root = Path(__file__).parent
    files = {path.stem: path for folder in ("bases", "shapes") for path in (root / folder).glob("*.yaml")}
    used = {
        name
        for path in [*(root / f"{case}.yaml" for case in GOLDEN.list_names()), *files.values()]
        for name in _find_likes(list(yaml.safe_load_all(path.read_text())))
    }
    assert used == set(files)


def _find_likes(value: Any) -> set[str]:
    if isinstance(value, list):
        return {name for item in value for name in _find_likes(item)}
    if not isinstance(value, dict):
        return set()
    return _find_likes(list(value.values())) | ({value[LIKE]} if LIKE in value else set())
