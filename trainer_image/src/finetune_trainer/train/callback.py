"""Follows a training: metrics, log lines, marks on checkpoints, a stop in good order."""

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
from finetune_trainer.train.checkpoints import mark_whole

_LOG = logging.getLogger(__name__)
_LINE_SECONDS = 5.0


class Follower(TrainerCallback):  # type: ignore[misc]
    """Registered with the trainer; transformers calls it."""

    def __init__(self, began: float) -> None:
        """Take over SIGTERM: the present step ends, a checkpoint is saved, the training stops.

        `began` is when the process began, by the monotonic clock.
        """
        self.stopped = False
        self.startup_seconds = 0.0
        """From the beginning of the process to the end of its first step."""
        self.seconds = 0.0
        """How long the steps of this attempt took so far."""
        self._process_began = began
        self._began = 0.0
        self._first_step = 0
        self._said = 0.0
        signal.signal(signal.SIGTERM, self._stop)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Make the progress visible before the first step."""
        self._began, self._first_step = time.monotonic(), state.global_step
        metrics.STEP.set(state.global_step)
        metrics.STEPS.set(state.max_steps)
        metrics.CHECKPOINT.set(state.global_step)
        _LOG.info("%d steps, from step %d", state.max_steps, state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Count, and stop where it was asked for."""
        done = state.global_step - self._first_step
        self.seconds = time.monotonic() - self._began
        pace = self.seconds / max(done, 1)
        if done == 1:
            self.startup_seconds = time.monotonic() - self._process_began
        metrics.STEP.set(state.global_step)
        metrics.EPOCH.set(state.epoch or 0)
        metrics.REMAINING.set(pace * (state.max_steps - state.global_step))
        # Only ever set: a signal that comes between asking and writing must not be written over.
        if _any_process(args, here=self.stopped):
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
        """Publish the figures of a step; a loss that is no number ends the training."""
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
        if now - self._said >= _LINE_SECONDS or state.global_step == state.max_steps:
            self._said = now
            _LOG.info("step %d of %d, loss %.4f", state.global_step, state.max_steps, loss)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Mark the checkpoint as whole: transformers calls this after its last file."""
        if state.is_world_process_zero and args.output_dir:
            mark_whole(Path(args.output_dir) / f"checkpoint-{state.global_step}")
            metrics.CHECKPOINT.set(state.global_step)
            _LOG.info("checkpoint at step %d", state.global_step)

    def _stop(self, *_: object) -> None:
        self.stopped = True


def _any_process(args: TrainingArguments, *, here: bool) -> bool:
    """Tell whether it holds in any process: they see a signal at different steps, and must stop at the same one."""
    if args.world_size == 1:
        return here
    import torch

    flag = torch.tensor([int(here)], device=args.device)
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag.item())
