"""Talks to a served model."""

from collections.abc import Iterator

from openai import OpenAI, OpenAIError
from openai.types.chat import ChatCompletionMessageParam
from rich.console import Console

from finetune.errors import CommandError


def ask(client: OpenAI, model: str, question: str, system: str) -> str:
    """Return the answer of a model to one question, after a system message if there is one.

    Raises:
        CommandError: the server refuses or does not answer.
    """
    try:
        messages = _begin(system)
        messages.append({"role": "user", "content": question})
        completion = client.chat.completions.create(model=model, messages=messages, temperature=0)
    except OpenAIError as error:
        raise CommandError(f"{model}: {error}") from None
    return completion.choices[0].message.content or ""


def chat(client: OpenAI, model: str, system: str, console: Console) -> None:
    """Answer the lines that the user writes, until the end of the input; each is sent with those before it."""
    console.print(f"\nChat with {model}; an empty line begins a new conversation, Ctrl-D ends it.")
    messages = _begin(system)
    while True:
        try:
            question = console.input("> ")
        except EOFError:
            console.print()
            return
        if not question.strip():
            messages = _begin(system)
            continue
        messages.append({"role": "user", "content": question})
        answer = ""
        try:
            for text in _stream(client, model, messages):
                answer += text
                console.print(text, end="")
        except OpenAIError as error:
            console.print(error, style="yellow")
            messages.pop()
            continue
        console.print()
        messages.append({"role": "assistant", "content": answer})


def _begin(system: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "system", "content": system}] if system else []


def _stream(client: OpenAI, model: str, messages: list[ChatCompletionMessageParam]) -> Iterator[str]:
    for chunk in client.chat.completions.create(model=model, messages=messages, temperature=0, stream=True):
        if chunk.choices:
            yield chunk.choices[0].delta.content or ""
