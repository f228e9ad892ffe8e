"""vLLM without a server: answers and likelihoods of many conversations at once, by base or adapter."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_api.chat import Message, Rendered, render_example

from finetune_serving.comparison import Sample
from finetune_serving.config import LORA_MODULES, allowed_rank
from finetune_serving.scores import exact_match, rouge_l

_BATCH = 256
"""Conversations at a time: every prompt token brings an object of its own."""


@dataclass(frozen=True)
class Question:
    """One held-out example, ready for the engine."""

    example: dict[str, Any]
    ids: list[int]
    """Token ids of the whole example."""
    is_target: list[bool]
    """Which of them are to be learnt: those that the assistant wrote, of plain text all."""
    prompt: list[int] = field(default_factory=list)
    """Token ids up to where the last answer begins; none where there is nothing to answer."""
    reference: str = ""
    """The last answer."""


class Engine:
    """One model in vLLM, with room for one adapter."""

    def __init__(self, model: str, revision: str | None, rank: int, *, gpu: bool) -> None:
        """Load the model; it takes a minute or more."""
        from vllm import LLM

        options: dict[str, Any] = (
            {}
            if gpu
            else {
                "dtype": "float32",
                "enforce_eager": True,
                "distributed_executor_backend": "uni",
            }
        )
        self._llm = LLM(
            model=model,
            revision=revision,
            load_format="safetensors",
            enable_lora=True,
            max_loras=1,
            max_lora_rank=allowed_rank(rank),
            lora_target_modules=list(LORA_MODULES),
            enable_prefix_caching=False,
            disable_log_stats=True,
            **options,
        )
        self._tokenizer: Any = self._llm.get_tokenizer()
        self.longest = int(self._llm.model_config.max_model_len)

    def build_question(self, example: dict[str, Any]) -> Question:
        """Render and tokenise a held-out example.

        Raises:
            TemplateError: the chat template cannot render it.
        """
        tools = example.get("tools")

        def render(part: list[Message], opening: bool) -> str:  # noqa: FBT001 - finetune_api.chat.Render
            return str(
                self._tokenizer.apply_chat_template(part, tools=tools, tokenize=False, add_generation_prompt=opening)
            )

        rendered = render_example(example, render, self._tokenizer.eos_token or "")
        encoded = self._tokenizer(rendered.text, add_special_tokens=False, return_offsets_mapping=True)
        targets = [_is_inside(begin, rendered) for begin, _ in encoded["offset_mapping"]]
        if "text" in example:
            return Question(example, encoded["input_ids"], targets)
        begin, end = rendered.spans[-1]
        prompt = self._tokenizer(rendered.text[:begin], add_special_tokens=False)["input_ids"]
        answer = self._tokenizer(rendered.text[begin:end], add_special_tokens=False)["input_ids"]
        reference = self._tokenizer.decode(answer, skip_special_tokens=True).strip()
        return Question(example, encoded["input_ids"], targets, prompt, reference)

    def judge(self, questions: list[Question], max_tokens: int, adapter: Path | None) -> list[Sample]:
        """Measure a model on every question: likelihood of the targets, and a greedy answer."""
        samples: list[Sample] = []
        for start in range(0, len(questions), _BATCH):
            samples += self._judge_batch(questions[start : start + _BATCH], max_tokens, adapter)
        return samples

    def _judge_batch(self, questions: list[Question], max_tokens: int, adapter: Path | None) -> list[Sample]:
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        lora = LoRARequest("tuned", 1, str(adapter)) if adapter else None
        likelihoods = self._llm.generate(
            [{"prompt_token_ids": question.ids} for question in questions],
            SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False),
            lora_request=lora,
            use_tqdm=False,
        )
        asked = [{"prompt_token_ids": question.prompt} for question in questions if question.prompt]
        answers = iter(
            self._llm.generate(
                asked, SamplingParams(temperature=0, max_tokens=max_tokens), lora_request=lora, use_tqdm=False
            )
            if asked
            else ()
        )
        return [
            _build_sample(
                question, likelihood.prompt_logprobs, next(answers).outputs[0].text.strip() if question.prompt else None
            )
            for question, likelihood in zip(questions, likelihoods, strict=True)
        ]


def _build_sample(question: Question, logprobs: list[Any], answer: str | None) -> Sample:
    """Sum over the target tokens; the first token of all has no likelihood."""
    nlls = [
        -logprobs[index][token].logprob
        for index, (token, is_target) in enumerate(zip(question.ids, question.is_target, strict=True))
        if is_target and logprobs[index] is not None
    ]
    return Sample(
        nll=float(sum(nlls)),
        tokens=len(nlls),
        exact_match=None if answer is None else exact_match(answer, question.reference),
        rouge_l=None if answer is None else rouge_l(answer, question.reference),
        answer=answer,
    )


def _is_inside(begin: int, rendered: Rendered) -> bool:
    return any(start <= begin < end for start, end in rendered.spans)
