"""A job that keeps the result of its parent evaluates it on examples that the parent was not trained on."""

import json

from finetune_api.contract.jobfile import JobDirectory
from finetune_api.warm_start import WarmStart
from finetune_pod.fingerprints import hash_prompt

from finetune_trainer.failures import StageError
from finetune_trainer.prepare.row_issues import RowIssues
from finetune_trainer.prepare.scan import dataset_invalid
from finetune_trainer.prepared import read_examples


def leave_out_known(parent: WarmStart, directory: JobDirectory, warnings: RowIssues) -> int:
    """Remove the held-out examples that a parent job was trained on, and return how many are left.

    Raises:
        StageError: none is left.
    """
    heldout, trained = directory.heldout_data, JobDirectory.of_artifact(parent.artifact, directory.root)
    examples = list(read_examples(heldout))
    try:
        known = set(map(hash_prompt, read_examples(trained.train_data)))
    except StageError:
        message = f"the training data of FineTuneJob {parent.job} is gone: held-out examples may have been trained on"
        warnings.add("all", "parent", message)
        return len(examples)
    new = [example for example in examples if hash_prompt(example) not in known]
    if not new:
        raise dataset_invalid(
            f"FineTuneJob {parent.job} was trained on all {len(examples)} held-out examples: set dataset.validation to"
            f" other data, or training data, dataset.holdout and hyperparameters.seed to those of {parent.job}"
        )
    if len(new) < len(examples):
        message = (
            f"{len(examples) - len(new)} held-out examples are left out: FineTuneJob {parent.job} was trained on them"
        )
        warnings.add("all", "known", message)
        partial = heldout.with_suffix(".part")
        partial.write_text("".join(json.dumps(example, ensure_ascii=False) + "\n" for example in new), encoding="utf-8")
        partial.replace(heldout)
    return len(new)
