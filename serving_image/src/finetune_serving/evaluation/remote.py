"""A running server instead of an engine of one's own: candidates are versions that it hosts."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from openai import APIConnectionError, APIStatusError, OpenAI
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from finetune_serving.evaluation.engine import Candidate, Measured, sum_targets
from finetune_serving.evaluation.questions import Question, Sequence

_AT_A_TIME = 4
"""Requests on their way: the server's other users go on."""
_PATIENCE_SECONDS = 600
"""How long a version may take to be loaded, or a server to come back."""
_PAUSE_SECONDS = 2
_REQUEST_SECONDS = 300


class RemoteEngine:
    """Answers and likelihoods as Engine gives them, by a server with our plugin."""

    def __init__(self, url: str, model: str, revision: str | None) -> None:
        """Ask a server that is ready, with the API key in OPENAI_API_KEY where it asks for one.

        Args:
            url: of the server, without `/v1`.
            model: the base model's directory or its repository on the hub, for the tokenizer.
            revision: of it, where it is on the hub.
        """
        from transformers import AutoTokenizer

        key = os.environ.get("OPENAI_API_KEY", "none")
        self._client = OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=_REQUEST_SECONDS)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(model, revision=revision)
        listed: Any = _patiently(self._client.models.list)
        self.longest = int(listed.data[0].max_model_len)

    def measure(self, questions: list[Question], max_tokens: int, candidate: Candidate) -> Iterator[Measured]:
        """Yield what a version makes of every question, in their order."""
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            yield from pool.map(partial(self._measure, candidate.served_name, max_tokens), questions)

    def _measure(self, name: str, max_tokens: int, question: Question) -> Measured:
        nll, tokens = self._likelihood(name, question.likely)
        other, others = self._likelihood(name, question.rejected)
        answer = self._complete(name, list(question.prompt), max_tokens) if question.prompt else None
        return Measured(
            nll=nll,
            tokens=tokens,
            rejected=-other / others if others else None,
            answer=answer and answer.text.strip(),
            raw=self.tokenizer.decode(answer.token_ids) if answer else "",
        )

    def _likelihood(self, name: str, sequence: Sequence | None) -> tuple[float, int]:
        if sequence is None:
            return 0.0, 0
        given = self._complete(name, sequence.ids, 1, prompt_logprobs=0).prompt_logprobs
        logprobs = [one and one[str(token)]["logprob"] for token, one in zip(sequence.ids, given, strict=True)]
        return sum_targets(sequence, logprobs)

    def _complete(self, name: str, prompt: list[int], max_tokens: int, **more: Any) -> Any:
        """Return the greedy continuation of token ids, with vLLM's own fields."""
        complete = partial(
            self._client.completions.create,
            model=name,
            prompt=prompt,
            max_tokens=max_tokens,
            temperature=0,
            extra_body={"return_token_ids": True, **more},
        )
        return _patiently(complete).choices[0]


def _is_passing(error: BaseException) -> bool:
    """Tell whether the same request may be answered later: the version is not loaded yet, or the server moves."""
    if isinstance(error, APIStatusError):
        return error.status_code in (429, 502, 503, 504)
    return isinstance(error, APIConnectionError)


_patiently = retry(
    retry=retry_if_exception(_is_passing),
    stop=stop_after_delay(_PATIENCE_SECONDS),
    wait=wait_fixed(_PAUSE_SECONDS),
    reraise=True,
)(lambda ask: ask())
