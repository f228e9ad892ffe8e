"""vLLM without a server: batched answers and likelihoods of a model or of an adapter on it."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from finetune_pod.turns import read_content

from finetune_serving.adapters import check_applied
from finetune_serving.evaluation.questions import Question, Sequence
from finetune_serving.vllm_config import (
    TOKENIZER_MODE,
    UNUSED_LAYERS,
    choose_cpu_dtype,
    list_lora_layers,
    read_config,
    round_up_rank,
)

_BATCH = 256
"""Examples in a batch. It limits memory: vLLM returns an object for every prompt token."""


@dataclass(frozen=True)
class ModelOutput:
    """One model's answer to a question, and the likelihoods that it gives the question's sequences."""

    nll: float = 0.0
    """Summed negative log-likelihood of the target tokens of `expected`, in nats."""
    tokens: int = 0
    """Number of these target tokens."""
    rejected: float | None = None
    """Mean log-likelihood per token of the rejected answer."""
    answer: str | None = None
    """The greedy answer; None if the question has no prompt."""
    raw_answer: str = ""
    """The answer with its special tokens."""


@dataclass(frozen=True)
class ModelCandidate:
    """A model to evaluate."""

    model: str
    """The model's name in vLLM: a directory, or a repository on the hub."""
    adapter: Path | None = None
    """Directory of the adapter on it; None for the model itself."""
    rank: int = 0
    """The adapter's rank."""
    is_reward: bool = False
    """Whether it is a reward model, which scores texts and generates none."""
    served_name: str = ""
    """Model name with which a running server is requested."""


class VllmEngine:
    """One model in vLLM, with one adapter on it at a time."""

    def __init__(self, model: str, tokenizer: str, revision: str | None, max_rank: int | None, *, gpu: bool) -> None:
        """Load the model, which takes a minute or more.

        Args:
            model: a directory, or a repository on the hub.
            tokenizer: directory or repository of the model whose tokenizer and chat template are used.
            revision: branch, tag or commit of both on the hub.
            max_rank: maximum rank of an adapter; None loads the model without support for adapters.
            gpu: whether this vLLM is built for GPUs.
        """
        from vllm import LLM

        config = read_config(model, revision)
        options = _build_options(config, gpu=gpu)
        if max_rank is not None:
            options |= {
                "enable_lora": True,
                "max_loras": 1,
                "max_lora_rank": round_up_rank(max_rank),
                "lora_target_modules": list_lora_layers(config),
                "worker_extension_cls": UNUSED_LAYERS,
            }
        self._llm = LLM(
            model=model,
            tokenizer=tokenizer,
            revision=revision,
            tokenizer_revision=revision,
            **options,
        )
        self.tokenizer: Any = self._llm.get_tokenizer()
        self.max_model_len = int(self._llm.model_config.max_model_len)
        self._lora_ids: dict[Path, int] = {}

    def run(self, questions: list[Question], max_tokens: int, candidate: ModelCandidate) -> Iterator[ModelOutput]:
        """Yield a candidate's output for every question, in their order.

        Raises:
            AdapterRefusedError: vLLM does not apply all layers of the adapter.
        """
        lora = self._load(candidate.adapter) if candidate.adapter else None
        remaining = iter(questions)
        while batch := list(islice(remaining, _BATCH)):
            yield from self._run_batch(batch, max_tokens, lora)

    def _load(self, adapter: Path) -> Any:
        """Load an adapter, and return it as vLLM's requests name it."""
        from vllm.lora.request import LoRARequest

        # vLLM identifies adapters by their id, so each directory needs its own.
        lora_id = self._lora_ids.setdefault(adapter, len(self._lora_ids) + 1)
        lora = LoRARequest(f"adapter-{lora_id}", lora_id, str(adapter))
        self._llm.llm_engine.add_lora(lora)
        check_applied(self._llm.collective_rpc("list_unused_layers", args=(lora_id,)))
        return lora

    def _run_batch(self, questions: list[Question], max_tokens: int, lora: Any) -> Iterator[ModelOutput]:
        nlls = iter(self._compute_nlls([sequence for question in questions for sequence in question.expected], lora))
        expected = [sum_pairs(next(nlls) for _ in question.expected) for question in questions]
        rejected = self._compute_nlls([question.rejected for question in questions], lora)
        answers = self._generate([question.prompt for question in questions], max_tokens, lora)
        for (nll, tokens), (rejected_nll, rejected_tokens), answer in zip(expected, rejected, answers, strict=True):
            yield ModelOutput(
                nll=nll,
                tokens=tokens,
                rejected=-rejected_nll / rejected_tokens if rejected_tokens else None,
                answer=answer and read_answer(self.tokenizer, answer),
                raw_answer=self.tokenizer.decode(list(answer.token_ids)) if answer else "",
            )

    def _compute_nlls(self, sequences: Collection[Sequence | None], lora: Any) -> list[tuple[float, int]]:
        """Return the summed negative log-likelihood and the number of each sequence's target tokens."""
        from vllm import SamplingParams

        given = [sequence for sequence in sequences if sequence]
        outputs = iter(
            self._llm.generate(
                [{"prompt_token_ids": sequence.ids} for sequence in given],
                SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False),
                lora_request=lora,
                use_tqdm=False,
            )
            if given
            else ()
        )
        return [
            sum_targets(sequence, _select_logprobs(sequence, next(outputs).prompt_logprobs)) if sequence else (0.0, 0)
            for sequence in sequences
        ]

    def _generate(self, prompts: list[tuple[int, ...]], max_tokens: int, lora: Any) -> list[Any]:
        """Return vLLM's greedy completion of each prompt; None for an empty one."""
        from vllm import SamplingParams

        given = [{"prompt_token_ids": list(prompt)} for prompt in prompts if prompt]
        outputs = iter(
            self._llm.generate(
                given, SamplingParams(temperature=0, max_tokens=max_tokens), lora_request=lora, use_tqdm=False
            )
            if given
            else ()
        )
        return [next(outputs).outputs[0] if prompt else None for prompt in prompts]


class RewardModel:
    """A reward model in vLLM, which scores conversations."""

    def __init__(self, model: str, tokenizer: str, *, gpu: bool) -> None:
        """Load the model; the tokenizer is the base model's."""
        from vllm import LLM

        options = _build_options(read_config(model, None), gpu=gpu)
        self._llm = LLM(model=model, tokenizer=tokenizer, runner="pooling", **options)
        self.tokenizer: Any = self._llm.get_tokenizer()
        self.max_model_len = int(self._llm.model_config.max_model_len)

    def score(self, sequences: list[Sequence]) -> list[float]:
        """Return the score of each sequence without an activation function, as in the training."""
        from vllm import PoolingParams

        prompts = [{"prompt_token_ids": sequence.ids} for sequence in sequences]
        outputs = self._llm.classify(prompts, pooling_params=PoolingParams(use_activation=False), use_tqdm=False)
        return [float(output.outputs.probs[0]) for output in outputs]


def _build_options(config: dict[str, Any], *, gpu: bool) -> dict[str, Any]:
    """Return the options of vLLM that answers and rewards share."""
    options: dict[str, Any] = {
        "load_format": "safetensors",
        "tokenizer_mode": TOKENIZER_MODE,
        "language_model_only": True,
        "enable_prefix_caching": False,
        "disable_log_stats": True,
    }
    if not gpu:
        options |= {"dtype": choose_cpu_dtype(config), "enforce_eager": True, "distributed_executor_backend": "uni"}
    return options


def read_answer(tokenizer: Any, completion: Any) -> str:
    """Return the content of a completion with its tokens, of which the last one ended it if it was not truncated."""
    ids = completion.token_ids[:-1] if completion.finish_reason == "stop" else completion.token_ids
    return read_content(tokenizer, ids)


def _select_logprobs(sequence: Sequence, prompt_logprobs: list[Any]) -> list[float | None]:
    """Return the log-probability of each token of a sequence; None for the first token."""
    return [by_token and by_token[token].logprob for token, by_token in zip(sequence.ids, prompt_logprobs, strict=True)]


def sum_pairs(pairs: Iterable[tuple[float, int]]) -> tuple[float, int]:
    """Return the sums of negative log-likelihoods and of their numbers of tokens."""
    nll, tokens = 0.0, 0
    for pair_nll, pair_tokens in pairs:
        nll, tokens = nll + pair_nll, tokens + pair_tokens
    return nll, tokens


def sum_targets(sequence: Sequence, logprobs: list[float | None]) -> tuple[float, int]:
    """Return the summed negative log-likelihood of a sequence's target tokens, and their number.

    Args:
        sequence: the tokens.
        logprobs: log-probability of each token; the first token has none.
    """
    nlls = [
        -logprob
        for logprob, is_target in zip(logprobs, sequence.is_target, strict=True)
        if is_target and logprob is not None
    ]
    return float(sum(nlls)), len(nlls)
