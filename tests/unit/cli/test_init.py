"""A first manifest fits the data, is valid, and says how to go on."""

import json
from pathlib import Path
from typing import Any

import pytest
from finetune.errors import CommandError
from finetune.init import build_manifests, choose_name, format_manifests, inspect_data
from finetune.manifests import find_job, read_manifests

CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


def write(directory: Path, *rows: Any) -> Path:
    path = directory / "Shop_Chats.v2.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("row", "data_format", "method", "columns"),
    [
        (CHAT, "Chat", "sft", {}),
        ({"prompt": "a", "completion": "b"}, "PromptCompletion", "sft", {}),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "Preference", "dpo", {}),
        ({"prompt": "a", "completion": "b", "label": True}, "UnpairedPreference", "kto", {}),
        ({"question": "a", "answer": "b"}, "PromptCompletion", "sft", {"prompt": "question", "completion": "answer"}),
    ],
)
def test_the_method_fits_the_rows(
    row: Any, data_format: str, method: str, columns: dict[str, str], tmp_path: Path
) -> None:
    data = inspect_data(write(tmp_path, row))
    assert (data.format, data.method, data.columns) == (data_format, method, columns)
    path = tmp_path / "job.yaml"
    path.write_text(format_manifests(build_manifests(data, "shop", "hf://org/base", 1), data, "shop", path))
    server, job = read_manifests(path)
    assert find_job(path, [server, job])["spec"]["method"] == {method: {}}
    assert job["spec"]["dataset"]["train"].get("columns", {}) == columns
    assert server["metadata"]["name"] == job["spec"]["serving"]["server"]
    assert server["spec"]["model"] == job["spec"]["model"] == {"uri": "hf://org/base"}
    assert (server["spec"]["resources"], job["spec"]["compute"]["resources"]) == ({"gpus": 1}, {"gpus": 1})


def test_a_small_file_is_a_config_map_and_a_large_one_is_on_a_claim(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    for count, uri, remedy in (
        (1, "configmap://shop-data/", "kubectl create configmap shop-data --from-file="),
        (20_000, "pvc://shop-data/", f"--mount shop-data={tmp_path}"),
    ):
        data = inspect_data(write(tmp_path, *[CHAT] * count))
        manifests = build_manifests(data, "shop", "pvc://models/base", 0)
        assert manifests[1]["spec"]["dataset"]["train"]["uri"] == f"{uri}{data.path.name}"
        assert remedy in format_manifests(manifests, data, "shop", path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the file has no rows"),
        ([{"a": "b"}], "match no format"),
        ([{"prompt": "a"}], "docs/training.md"),
        ([{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}], "image"),
    ],
)
def test_data_without_a_method_is_refused(rows: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=message):
        inspect_data(write(tmp_path, *rows))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.docx"
    path.write_text("x")
    with pytest.raises(CommandError, match="must end in one of"):
        inspect_data(path)
    with pytest.raises(CommandError, match="rename the file"):
        inspect_data(tmp_path / "my data.jsonl")
    with pytest.raises(CommandError, match="No such file"):
        inspect_data(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("file", "name"),
    [("Shop_Chats.v2.jsonl", "shop-chats"), ("a_b.csv", "a-b"), ("__.jsonl", "tuned"), ("a" * 80, "a" * 40)],
)
def test_the_name_is_that_of_the_file(file: str, name: str) -> None:
    assert choose_name(Path(file)) == name
