"""The chat template of a ConfigMap."""

import hashlib
from pathlib import Path

import pytest
from finetune_api.conditions import Reason
from finetune_api.contract.jobfile import JobDirectory
from finetune_pod.template_file import TemplateFileError, read_prepared_template, read_template
from unit.specs import job_file

URI = "configmap://templates/chat.jinja"


def write(root: Path, content: bytes) -> None:
    """Write the key as the kubelet mounts it: a link that it replaces when the ConfigMap changes."""
    directory = root / "configmaps" / "templates"
    (directory / "..data").mkdir(parents=True)
    (directory / "..data" / "chat.jinja").write_bytes(content)
    (directory / "chat.jinja").symlink_to("..data/chat.jinja")


def test_a_template_is_read_with_its_digest(tmp_path: Path) -> None:
    write(tmp_path, b"{{ messages }}\n")
    template = read_template(URI, tmp_path)
    assert (template.uri, template.text) == (URI, "{{ messages }}\n")
    assert template.digest == f"sha256:{hashlib.sha256(b'{{ messages }}' + bytes([10])).hexdigest()}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{{", "is no Jinja template: line 1: "),
        (b"{{ " + b"(" * 30_000, "is no Jinja template: it is nested too deeply"),
        (b"\xff", r"is not UTF-8 \(byte 1\)"),
        (b" ", "is empty"),
        (b"x" * 70_000, "has 70000 bytes, and a chat template has 65536 at most"),
    ],
)
def test_a_value_that_is_no_template_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    write(tmp_path, content)
    with pytest.raises(TemplateFileError, match=f"^{URI} {message}") as error:
        read_template(URI, tmp_path)
    assert error.value.reason is Reason.TEMPLATE_INVALID


def test_the_keys_are_listed_if_one_is_missing(tmp_path: Path) -> None:
    write(tmp_path, b"x")
    with pytest.raises(TemplateFileError, match="the ConfigMap templates has the keys chat.jinja; correct"):
        read_template("configmap://templates/other.jinja", tmp_path)
    with pytest.raises(TemplateFileError, match=r"the ConfigMap other has the keys \(none\)"):
        read_template("configmap://other/chat.jinja", tmp_path)


def test_later_stages_use_the_copy_of_prepare(tmp_path: Path) -> None:
    job = job_file(model={"uri": "pvc://models/base", "chatTemplate": URI})
    directory = JobDirectory.of(job, tmp_path)
    with pytest.raises(FileNotFoundError):
        read_prepared_template(job, directory)
    directory.chat_template.parent.mkdir(parents=True)
    directory.chat_template.write_text("{{ messages }}")
    template = read_prepared_template(job, directory)
    assert template is not None
    assert (template.uri, template.text) == (URI, "{{ messages }}")
    assert read_prepared_template(job_file(), directory) is None
