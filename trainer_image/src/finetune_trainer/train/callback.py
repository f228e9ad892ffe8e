"""The callback that publishes metrics, logs progress, marks checkpoints, and stops the training on SIGTERM."""

import logging
import math
import signal
import time
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune_trainer.failures import StageError
from finetune_trainer.train import metrics
from finetune_trainer.train.checkpoints import mark_complete

_LOG = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 5.0


class TrainingCallback(TrainerCallback):  # type: ignore[misc]
    """Follows one attempt, in each of its processes."""

    def __init__(self, process_started: float) -> None:
        """Install a handler for SIGTERM: the current step ends, a checkpoint is saved, and the training stops.

        Args:
            process_started: when the process started, by the monotonic clock.
        """
        self.stopped = False
        """Whether some process received SIGTERM."""
        self.startup_seconds = 0.0
        """Seconds from the start of the process to the end of its first step."""
        self.seconds = 0.0
        """Seconds that the steps of this attempt have taken so far."""
        self._process_started = process_started
        self._training_started = 0.0
        self._first_step = 0
        self._last_line = 0.0
        signal.signal(signal.SIGTERM, self._handle_sigterm)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Publish the progress before the first step."""
        self._training_started, self._first_step = time.monotonic(), state.global_step
        metrics.STEP.set(state.global_step)
        metrics.STEPS.set(state.max_steps)
        metrics.CHECKPOINT.set(state.global_step)
        _LOG.info("%d steps, starting from step %d", state.max_steps, state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Publish the progress; save and stop if some process received SIGTERM."""
        done = state.global_step - self._first_step
        self.seconds = time.monotonic() - self._training_started
        seconds_per_step = self.seconds / max(done, 1)
        if done == 1:
            self.startup_seconds = time.monotonic() - self._process_started
        metrics.STEP.set(state.global_step)
        metrics.EPOCH.set(state.epoch or 0)
        metrics.REMAINING.set(seconds_per_step * (state.max_steps - state.global_step))
        # Never reset to False: the signal may arrive between the read and the write.
        if _is_true_anywhere(args, here=self.stopped):
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Publish the metrics of a step.

        Raises:
            StageError: the loss is not finite.
        """
        loss = (logs or {}).get("loss")
        if logs is None or loss is None:
            return
        if not math.isfinite(loss):
            raise StageError(
                Reason.LOSS_NOT_FINITE,
                f"the loss is {loss} at step {state.global_step}: lower hyperparameters.learningRate",
            )
        metrics.LOSS.set(loss)
        metrics.LEARNING_RATE.set(logs.get("learning_rate", 0))
        metrics.TOKENS.set(logs.get("num_tokens", 0))
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES or state.global_step == state.max_steps:
            self._last_line = now
            _LOG.info("step %d of %d, loss %.4f", state.global_step, state.max_steps, loss)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Mark the checkpoint as complete: transformers calls this after it has written the last file."""
        if state.is_world_process_zero and args.output_dir:
            mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")
            metrics.CHECKPOINT.set(state.global_step)
            _LOG.info("saved a checkpoint at step %d", state.global_step)

    def _handle_sigterm(self, *_: object) -> None:
        self.stopped = True


def _is_true_anywhere(args: TrainingArguments, *, here: bool) -> bool:
    """Return whether `here` is true in any process.

    The processes receive a signal at different steps, but must stop at the same one.
    """
    if args.world_size == 1:
        return here
    import torch

    flag = torch.tensor([int(here)], device=args.device)
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag.item())
