"""Reads the chat template of `model.chatTemplate`, and checks that the server will render with the same."""

from pathlib import Path

from finetune_api.conditions import Reason
from finetune_api.contract.jobfile import JobFile
from finetune_pod.template_file import TemplateFile, read_template

from finetune_trainer.failures import StageError
from finetune_trainer.fetch.sources import translate_errors
from finetune_trainer.prepare.model_check import explain_renderer
from finetune_trainer.prepare.shape import ModelShape


def read_chat_template(job: JobFile, shape: ModelShape, root: Path) -> TemplateFile | None:
    """Return the chat template of a job; None if it uses the model's own.

    Args:
        job: the job.
        shape: of its base model.
        root: the directory below which ConfigMaps are mounted.

    Raises:
        StageError: it cannot be used, was changed since the parent job, or vLLM would not render with it.
    """
    uri = job.spec.model.chat_template
    if uri is None:
        return None
    if explain_renderer(shape):
        raise StageError(
            Reason.TEMPLATE_INVALID,
            f"{uri}: vLLM renders chats of {job.spec.model.uri} with code of its own and ignores other chat templates:"
            " leave model.chatTemplate out",
        )
    with translate_errors(Reason.TEMPLATE_INVALID):
        template = read_template(uri, root)
    parent = job.warm_start
    if parent and parent.chat_template and parent.chat_template != template.digest:
        raise StageError(
            Reason.TEMPLATE_INVALID,
            f"{uri} was changed since FineTuneJob {parent.job} was trained with it: restore the content with the digest"
            f" {parent.chat_template[:19]}",
        )
    return template
