"""The evaluation on a running server instead of an own engine: candidates are versions that the server hosts."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from openai import APIConnectionError, APIStatusError, OpenAI
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from finetune_serving.evaluation.engine import ModelCandidate, ModelOutput, read_answer, sum_pairs, sum_targets
from finetune_serving.evaluation.questions import Question, Sequence

_CONCURRENCY = 4
"""Concurrent requests; few, since the server also answers its users."""
_RETRY_FOR_SECONDS = 600
"""Time for a version to load, or for a server to restart."""
_RETRY_WAIT_SECONDS = 2
_REQUEST_SECONDS = 300


class RemoteEngine:
    """Gives the same outputs as VllmEngine, through a server with our plugin."""

    def __init__(self, url: str, model: str, revision: str | None) -> None:
        """Connect to a server. The API key, if the server needs one, is in OPENAI_API_KEY.

        Args:
            url: address of the server, without `/v1`.
            model: directory or hub repository of the base model, for the tokenizer.
            revision: branch, tag or commit of the base model on the hub.
        """
        from transformers import AutoTokenizer

        key = os.environ.get("OPENAI_API_KEY", "none")
        self._client = OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=_REQUEST_SECONDS)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(model, revision=revision)
        models: Any = _call_with_retries(self._client.models.list)
        self.max_model_len = int(models.data[0].max_model_len)

    def run(self, questions: list[Question], max_tokens: int, candidate: ModelCandidate) -> Iterator[ModelOutput]:
        """Yield a version's output for every question, in their order."""
        with ThreadPoolExecutor(_CONCURRENCY) as pool:
            yield from pool.map(partial(self._run, candidate.served_name, max_tokens), questions)

    def _run(self, name: str, max_tokens: int, question: Question) -> ModelOutput:
        nll, tokens = sum_pairs(self._compute_nll(name, sequence) for sequence in question.expected)
        rejected_nll, rejected_tokens = self._compute_nll(name, question.rejected)
        answer = self._complete(name, list(question.prompt), max_tokens) if question.prompt else None
        return ModelOutput(
            nll=nll,
            tokens=tokens,
            rejected=-rejected_nll / rejected_tokens if rejected_tokens else None,
            answer=answer and read_answer(self.tokenizer, answer),
            raw_answer=self.tokenizer.decode(answer.token_ids) if answer else "",
        )

    def _compute_nll(self, name: str, sequence: Sequence | None) -> tuple[float, int]:
        """Return the summed negative log-likelihood and the number of a sequence's target tokens."""
        if sequence is None:
            return 0.0, 0
        prompt_logprobs = self._complete(name, sequence.ids, 1, prompt_logprobs=0).prompt_logprobs
        logprobs = [
            by_token and by_token[str(token)]["logprob"]
            for token, by_token in zip(sequence.ids, prompt_logprobs, strict=True)
        ]
        return sum_targets(sequence, logprobs)

    def _complete(self, name: str, prompt: list[int], max_tokens: int, **vllm_fields: Any) -> Any:
        """Return the greedy completion of token ids; `vllm_fields` are vLLM's additions to OpenAI's request."""
        complete = partial(
            self._client.completions.create,
            model=name,
            prompt=prompt,
            max_tokens=max_tokens,
            temperature=0,
            extra_body={"return_token_ids": True, **vllm_fields},
        )
        return _call_with_retries(complete).choices[0]


def _is_transient(error: BaseException) -> bool:
    """Return whether a retry may succeed: the version is not loaded yet, or the server restarts."""
    if isinstance(error, APIStatusError):
        return error.status_code in (429, 502, 503, 504)
    return isinstance(error, APIConnectionError)


_call_with_retries = retry(
    retry=retry_if_exception(_is_transient),
    stop=stop_after_delay(_RETRY_FOR_SECONDS),
    wait=wait_fixed(_RETRY_WAIT_SECONDS),
    reraise=True,
)(lambda call: call())
