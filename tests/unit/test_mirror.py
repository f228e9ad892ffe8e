"""The unit tests of package/module.py are in test_module.py of the same directory below tests/unit."""

from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGES = {
    "api": "crds/src/finetune_api",
    "pod": "pod_common/src/finetune_pod",
    "operator": "operator/src/finetune_operator",
    "trainer": "trainer_image/src/finetune_trainer",
    "serving": "serving_image/src/finetune_serving",
    "cli": "cli/src/finetune",
    "cluster": "tests/cluster",
    "escalations": "tests/escalations",
}


def test_every_file_has_the_name_of_a_module() -> None:
    misplaced = []
    for folder, package in PACKAGES.items():
        files = sorted((HERE / folder).rglob("test_*.py"))
        assert files, f"tests/unit/{folder} has no tests"
        modules = [(file, file.relative_to(HERE / folder).with_name(file.name.removeprefix("test_"))) for file in files]
        misplaced += [
            f"{file.relative_to(ROOT)}: {package} has no {module}: name the test file after the module that it tests"
            for file, module in modules
            if not (ROOT / package / module).exists()
        ]
    assert not misplaced, "\n".join(misplaced)
