"""The CustomResourceDefinitions."""

from typing import Any

from finetune_api.crd import build_crds


def test_every_field_is_described() -> None:
    def undescribed(schema: dict[str, Any], path: str) -> list[str]:
        missing = []
        for name, part in schema.get("properties", {}).items():
            if "description" not in part:
                missing.append(f"{path}.{name}")
            missing += undescribed(part, f"{path}.{name}") + undescribed(part.get("items", {}), f"{path}.{name}")
        return missing

    for crd in build_crds().values():
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        missing = [path for path in undescribed(schema, "") if not path.startswith(".status.attempts.")]
        assert not missing


def test_the_description_of_a_field_names_its_default() -> None:
    spec = build_crds()["finetunejobs.yaml"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    fields = spec["properties"]["compute"]["properties"]
    assert fields["saveSteps"]["description"].endswith(" Default: 100.")
    assert fields["parallelism"]["description"].endswith(" Default: DDP.")
    assert "\n" not in fields["parallelism"]["description"]
    assert spec["properties"]["suspend"]["description"].endswith(" Default: false.")
