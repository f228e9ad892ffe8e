"""Bad data and the messages with which `prepare` refuses it.

`data/*.yaml` has the cases: the `content` of one file, `files` by their names, or the name of a binary file that is
`made` here; the keys of the ConfigMap `templates`; the `method`, if it is not sft; the `reason`, if it is not
DatasetInvalid; the `message`.
"""

import bz2
import gzip
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from finetune_api.conditions import Reason
from finetune_pod.template_file import MAX_TEMPLATE_BYTES
from finetune_trainer.failures import StageError
from finetune_trainer.prepare.json_rows import MAX_ROW_BYTES
from finetune_trainer.prepare.stage import prepare
from model.tiny import make_tiny_model
from workspace import make_workspace

HERE = Path(__file__).parent
CASES = [(path.stem, case) for path in sorted(HERE.glob("data/*.yaml")) for case in yaml.safe_load(path.read_text())]
LINE = b'{"text": "once upon a time"}\n'


def table(**columns: list[Any]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


METHODS: dict[str, dict[str, Any]] = {
    **{name: {name: {}} for name in ("sft", "dpo", "orpo", "reward", "kto")},
    "grpo": {"grpo": {"graders": [{"name": "right", "stringCheck": {}}]}},
}
MADE: dict[str, tuple[str, bytes]] = {
    "UTF-16": ("data.jsonl", LINE.decode().encode("utf-16")),
    "Latin-1": ("data.jsonl", '{"text": "où est le thé?"}\n'.encode("latin-1")),
    "Latin-1 table": ("data.csv", "prompt,completion\noù est le thé?,là\n".encode("latin-1")),
    "a long line": ("data.jsonl", b'{"text": "' + b"x" * MAX_ROW_BYTES + b'"}\n'),
    "a list in Latin-1": ("data.jsonl", '[{"text": "où est le thé?"}]'.encode("latin-1")),
    "a list with a long item": ("data.jsonl", b'[{"text": "' + b"x" * 3 * MAX_ROW_BYTES + b'"}]\n'),
    "a long number": ("data.jsonl", b'{"text": "x", "n": ' + b"1" * 5000 + b"}\n"),
    "many brackets": ("data.jsonl", b"[" * 100_000 + b"\n"),
    "many lists": ("data.jsonl", b'{"prompt": "x", "completion": "y", "n": ' + b"[" * 1000 + b"\n"),
    "gzip cut short": ("data.jsonl.gz", gzip.compress(LINE * 100, mtime=0)[:-12]),
    "gzip with a wrong checksum": ("data.jsonl.gz", gzip.compress(LINE, mtime=0)[:-8] + bytes(8)),
    "gzip of nothing": ("data.jsonl.gz", gzip.compress(b"", mtime=0)),
    "bzip2 damaged": ("data.jsonl.bz2", bz2.compress(LINE)[:-10] + bytes(10)),
    "Zstandard damaged": ("data.jsonl.zst", pa.compress(LINE * 100, codec="zstd", asbytes=True)[:20]),
    "Parquet cut short": ("data.parquet", table(text=["once upon a time"])[:-20]),
    "Parquet without rows": ("data.parquet", table(text=pa.array([], pa.string()))),
    "Parquet with a date": ("data.parquet", table(prompt=["when?"], answer=[datetime(2026, 1, 1, tzinfo=UTC)])),
    "Parquet with a NaN": ("data.parquet", table(prompt=["how much?"], answer=[float("nan")])),
}
TEMPLATES = {"over 64 KiB": b"x" * (MAX_TEMPLATE_BYTES + 1), "Latin-1": "où".encode("latin-1"), "empty": b"\n"}
"""Chat templates that a case can name."""


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base model."""
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.mark.parametrize(
    ("group", "case"), [pytest.param(group, case, id=f"{group}: {case['case']}") for group, case in CASES]
)
def test_bad_data_is_refused(model: Path, tmp_path: Path, group: str, case: dict[str, Any]) -> None:
    reason, message = run(model, tmp_path, case)
    assert message == case["message"]
    assert reason == case.get("reason", Reason.DATASET_INVALID)
    assert len(message) <= 1024


def run(model: Path, root: Path, case: dict[str, Any]) -> tuple[str, str]:
    """Prepare the data of a case; return reason and message of the failure."""
    files: dict[str, Any] = case.get("files", {"data.jsonl": case.get("content")})
    if "made" in case:
        name, content = MADE[case["made"]]
        files = {name: content}
    dataset = {"train": {"uri": case.get("uri", f"pvc://data/{next(iter(files), 'data.jsonl')}")}}
    if "validation" in case:
        dataset["validation"] = {"uri": f"pvc://data/{case['validation']}"}
    spec = {"dataset": dataset, "method": METHODS[case.get("method", "sft")]} | case.get("spec", {})
    workspace = make_workspace(root, model, [], **spec)
    (root / "claims" / "data" / "train.jsonl").unlink()
    for name, content in files.items():
        path = root / "claims" / "data" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for key, text in case.get("templates", {}).items():
        path = root / "configmaps" / "templates" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(TEMPLATES.get(text, text.encode()))
    with pytest.raises(StageError) as error:
        prepare(workspace.job, workspace.directory, None, "USD")
    return error.value.reason, str(error.value)


def test_case_names_are_unique_and_every_made_file_has_a_case() -> None:
    names = [(group, case["case"]) for group, case in CASES]
    assert len(set(names)) == len(names) >= 120
    assert {case["made"] for _, case in CASES if "made" in case} == set(MADE)
