"""A job that keeps the result of its parent evaluates it on examples that the parent was not trained on."""

import json

from finetune_api.contract.jobfile import JobDirectory, JobFile
from finetune_pod.fingerprints import hash_prompt

from finetune_trainer.failures import StageError
from finetune_trainer.prepare.row_issues import RowIssues
from finetune_trainer.prepare.scan import dataset_invalid
from finetune_trainer.prepared import read_examples


def leave_out_known(job: JobFile, directory: JobDirectory, warnings: RowIssues) -> int:
    """Remove the held-out examples that the parent was trained on, and return how many are left.

    Raises:
        StageError: none is left.
    """
    if job.kept is None or job.warm_start is None:
        raise ValueError("the job keeps no result")
    parent, heldout = job.warm_start.job, directory.heldout_data
    examples = list(read_examples(heldout))
    try:
        known = set(map(hash_prompt, read_examples(JobDirectory.of_artifact(job.kept, directory.root).train_data)))
    except StageError:
        message = f"the training data of FineTuneJob {parent} is gone: held-out examples may have been trained on"
        warnings.add("all", "parent", message)
        return len(examples)
    new = [example for example in examples if hash_prompt(example) not in known]
    if not new:
        raise dataset_invalid(
            f"FineTuneJob {parent} was trained on all {len(examples)} held-out examples: set dataset.validation to"
            f" other data, or dataset.train, dataset.holdout and hyperparameters.seed to those of {parent}"
        )
    if len(new) < len(examples):
        message = f"{len(examples) - len(new)} held-out examples are left out: FineTuneJob {parent} was trained on them"
        warnings.add("all", "known", message)
        partial = heldout.with_suffix(".part")
        partial.write_text("".join(json.dumps(example, ensure_ascii=False) + "\n" for example in new), encoding="utf-8")
        partial.replace(heldout)
    return len(new)
