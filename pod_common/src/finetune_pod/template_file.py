"""The chat template of `model.chatTemplate`, which is a key of a ConfigMap."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from finetune_api.conditions import Reason
from finetune_api.contract.jobfile import JobDirectory, JobFile
from finetune_api.contract.mounts import path_of
from jinja2 import TemplateSyntaxError

from finetune_pod.modelfiles import ModelFilesError
from finetune_pod.template import ENVIRONMENT

MAX_TEMPLATE_BYTES = 1 << 16
"""The largest of TRL's 72 templates of real models has a fifth of it."""


class TemplateFileError(ModelFilesError):
    """A `model.chatTemplate` that cannot be used."""

    reason = Reason.TEMPLATE_INVALID


@dataclass(frozen=True)
class TemplateFile:
    """A chat template, and where it is from."""

    uri: str
    """`configmap://name/key`."""
    text: str

    @property
    def digest(self) -> str:
        """`sha256:` and the digest of the text."""
        return f"sha256:{hashlib.sha256(self.text.encode()).hexdigest()}"


def read_template(uri: str, root: Path) -> TemplateFile:
    """Return a chat template.

    Args:
        uri: `configmap://name/key`.
        root: the directory below which ConfigMaps are mounted.

    Raises:
        TemplateFileError: there is no such key, or its value is no template; the message names both.
    """
    path = path_of(uri, root)
    if not path.is_file():
        keys = sorted(file.name for file in path.parent.glob("[!.]*")) if path.parent.is_dir() else []
        raise TemplateFileError(
            f"{uri} does not exist: the ConfigMap {path.parent.name} has the keys {', '.join(keys) or '(none)'};"
            " correct model.chatTemplate, or add the key"
        )
    size = path.stat().st_size
    if size > MAX_TEMPLATE_BYTES:
        raise TemplateFileError(
            f"{uri} has {size} bytes, and a chat template has {MAX_TEMPLATE_BYTES} at most: correct model.chatTemplate"
        )
    try:
        text = path.read_text(encoding="utf-8")
        ENVIRONMENT.parse(text)
    except UnicodeDecodeError as error:
        raise TemplateFileError(f"{uri} is not UTF-8 (byte {error.start + 1}): save the template as UTF-8") from None
    except TemplateSyntaxError as error:
        raise TemplateFileError(f"{uri} is no Jinja template: line {error.lineno}: {error.message}") from None
    except RecursionError:
        raise TemplateFileError(f"{uri} is no Jinja template: it is nested too deeply") from None
    if not text.strip():
        raise TemplateFileError(f"{uri} is empty: write a chat template")
    return TemplateFile(uri, text)


def read_prepared_template(job: JobFile, directory: JobDirectory) -> TemplateFile | None:
    """Return the chat template of a job as it was in `prepare`; None if it uses the model's own.

    Raises:
        FileNotFoundError: the claim was emptied.
    """
    uri = job.spec.model.chat_template
    return TemplateFile(uri, directory.chat_template.read_text(encoding="utf-8")) if uri else None
