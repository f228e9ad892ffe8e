"""vLLM without a server: answers and likelihoods of many examples at once, by a model or an adapter on it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from finetune_pod.servability import LORA_MODULES

from finetune_serving.evaluation.questions import Question, Sequence
from finetune_serving.vllm_config import allowed_rank

_BATCH = 256
"""Examples at a time: every prompt token brings an object of its own."""


@dataclass(frozen=True)
class Measured:
    """What one model makes of a question."""

    nll: float = 0.0
    """Negative log-likelihood of the target tokens of `likely`, nats, summed."""
    tokens: int = 0
    """How many there are."""
    rejected: float | None = None
    """Mean log-likelihood per token of the rejected answer."""
    answer: str | None = None
    """The greedy answer; None where nothing is asked."""
    raw: str = ""
    """The answer with its special tokens."""


@dataclass(frozen=True)
class Candidate:
    """A model to judge."""

    model: str
    """What vLLM calls it: a directory, or a repository on the hub."""
    adapter: Path | None = None
    """The adapter on it; None is the model itself."""
    rank: int = 0
    """The adapter's rank."""
    is_reward: bool = False
    """Whether it is a reward model: it scores and does not answer."""
    served_name: str = ""
    """What a running server calls it."""


class Engine:
    """One model in vLLM, with room for one adapter at a time."""

    def __init__(self, model: str, tokenizer: str, revision: str | None, rank: int | None, *, gpu: bool) -> None:
        """Load the model; it takes a minute or more.

        Args:
            model: a directory, or a repository on the hub.
            tokenizer: the same, of the model whose tokenizer and chat template are used.
            revision: of both, where they are on the hub.
            rank: the largest rank of an adapter; None loads the model without room for any.
            gpu: whether this vLLM is built for GPUs.
        """
        from vllm import LLM

        options = _common_options(gpu=gpu)
        if rank is not None:
            options |= {
                "enable_lora": True,
                "max_loras": 1,
                "max_lora_rank": allowed_rank(rank),
                "lora_target_modules": list(LORA_MODULES),
            }
        self._llm = LLM(
            model=model,
            tokenizer=tokenizer,
            revision=revision,
            tokenizer_revision=revision,
            **options,
        )
        self.tokenizer: Any = self._llm.get_tokenizer()
        self._numbers: dict[Path, int] = {}
        self.longest = int(self._llm.model_config.max_model_len)

    def measure(self, questions: list[Question], max_tokens: int, candidate: Candidate) -> Iterator[Measured]:
        """Yield what a candidate on this model makes of every question, in their order."""
        from vllm.lora.request import LoRARequest

        lora, adapter = None, candidate.adapter
        if adapter:
            # vLLM knows adapters by their number: another directory needs another one.
            number = self._numbers.setdefault(adapter, len(self._numbers) + 1)
            lora = LoRARequest(f"adapter-{number}", number, str(adapter))
        remaining = iter(questions)
        while batch := list(islice(remaining, _BATCH)):
            yield from self._measure_batch(batch, max_tokens, lora)

    def _measure_batch(self, questions: list[Question], max_tokens: int, lora: Any) -> Iterator[Measured]:
        likely = self._likelihoods([one.likely for one in questions], lora)
        rejected = self._likelihoods([one.rejected for one in questions], lora)
        answers = self._answers([one.prompt for one in questions], max_tokens, lora)
        for (nll, tokens), (other, others), answer in zip(likely, rejected, answers, strict=True):
            yield Measured(
                nll=nll,
                tokens=tokens,
                rejected=-other / others if others else None,
                answer=None if answer is None else answer.text.strip(),
                raw="" if answer is None else self.tokenizer.decode(list(answer.token_ids)),
            )

    def _likelihoods(self, sequences: list[Sequence | None], lora: Any) -> list[tuple[float, int]]:
        """Return the summed negative log-likelihood and the number of each sequence's target tokens."""
        from vllm import SamplingParams

        given = [one for one in sequences if one]
        outputs = iter(
            self._llm.generate(
                [{"prompt_token_ids": one.ids} for one in given],
                SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False),
                lora_request=lora,
                use_tqdm=False,
            )
            if given
            else ()
        )
        return [
            sum_targets(one, _likelihoods_of(one, next(outputs).prompt_logprobs)) if one else (0.0, 0)
            for one in sequences
        ]

    def _answers(self, prompts: list[tuple[int, ...]], max_tokens: int, lora: Any) -> list[Any]:
        """Return the greedy answer to each prompt; None to an empty one."""
        from vllm import SamplingParams

        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts if prompt]
        outputs = iter(
            self._llm.generate(
                asked, SamplingParams(temperature=0, max_tokens=max_tokens), lora_request=lora, use_tqdm=False
            )
            if asked
            else ()
        )
        return [next(outputs).outputs[0] if prompt else None for prompt in prompts]


class RewardModel:
    """A reward model in vLLM: scores conversations."""

    def __init__(self, model: str, tokenizer: str, *, gpu: bool) -> None:
        """Load the model; the tokenizer is the base model's."""
        from vllm import LLM

        self._llm = LLM(model=model, tokenizer=tokenizer, runner="pooling", **_common_options(gpu=gpu))
        self.tokenizer: Any = self._llm.get_tokenizer()
        self.longest = int(self._llm.model_config.max_model_len)

    def score(self, sequences: list[Sequence]) -> list[float]:
        """Return the score of each sequence, as it is learnt: without an activation function."""
        from vllm import PoolingParams

        prompts = [{"prompt_token_ids": one.ids} for one in sequences]
        found = self._llm.classify(prompts, pooling_params=PoolingParams(use_activation=False), use_tqdm=False)
        return [float(one.outputs.probs[0]) for one in found]


def _common_options(*, gpu: bool) -> dict[str, Any]:
    options: dict[str, Any] = {
        "load_format": "safetensors",
        "enable_prefix_caching": False,
        "disable_log_stats": True,
    }
    if not gpu:
        options |= {"dtype": "float32", "enforce_eager": True, "distributed_executor_backend": "uni"}
    return options


def _likelihoods_of(sequence: Sequence, logprobs: list[Any]) -> list[float | None]:
    return [given and given[token].logprob for token, given in zip(sequence.ids, logprobs, strict=True)]


def sum_targets(sequence: Sequence, logprobs: list[float | None]) -> tuple[float, int]:
    """Return the summed negative log-likelihood of a sequence's target tokens and their number.

    Args:
        sequence: the tokens.
        logprobs: of each token; the first one of all has none.
    """
    nlls = [
        -logprob
        for logprob, is_target in zip(logprobs, sequence.is_target, strict=True)
        if is_target and logprob is not None
    ]
    return float(sum(nlls)), len(nlls)
