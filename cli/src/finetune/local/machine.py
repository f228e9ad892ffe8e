"""Whether this machine can run a FineTuneJob."""

from finetune_api.finetunejob import FineTuneJobSpec

from finetune.errors import CommandError


def check_machine(spec: FineTuneJobSpec) -> None:
    """Check that the machine has what a job requests.

    Raises:
        CommandError: it has not; the message names the field.
    """
    if spec.compute.nodes > 1:
        raise CommandError(f"compute.nodes is {spec.compute.nodes}: one machine is one node, leave it out to run here")
    gpus = spec.compute.resources.gpus
    if gpus and gpus > (available := count_gpus()):
        raise CommandError(
            f"compute.resources.gpus is {gpus}, and this machine has {available}: set it to {available} to run here"
        )


def count_gpus() -> int:
    """Return the number of GPUs that torch can use."""
    import torch

    return int(torch.cuda.device_count())
