"""A reader finds the specification of a module in the file of the same name."""

from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGES = {
    "api": "crds/src/finetune_api",
    "operator": "operator/src/finetune_operator",
    "trainer": "trainer_image/src/finetune_trainer",
    "serving": "serving_image/src/finetune_serving",
    "cluster": "tests/cluster",
    "escalations": "tests/escalations",
}


def test_every_file_has_the_name_of_a_module() -> None:
    strangers = []
    for folder, package in PACKAGES.items():
        files = sorted((HERE / folder).rglob("test_*.py"))
        assert files, f"tests/unit/{folder} has no tests"
        modules = {path.stem for path in (ROOT / package).rglob("*.py")}
        strangers += [
            f"{file.relative_to(ROOT)}: {package} has no module {name}: put each test into the file of the module that"
            " it specifies"
            for file in files
            if (name := file.stem.removeprefix("test_")) not in modules
        ]
    assert not strangers, "\n".join(strangers)
