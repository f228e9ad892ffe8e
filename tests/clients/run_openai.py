"""Uses the model `bot` through openai-python, and prints what it got as JSON.

The model is random: it ends an answer in JSON only by chance, so that these have a high temperature.
"""

import json
import sys
from enum import Enum
from typing import Any

from openai import BadRequestError, NotFoundError, OpenAI
from pydantic import BaseModel

QUESTION = "what does thing 7 cost?"
MESSAGES: Any = [{"role": "user", "content": QUESTION}]
PARAMETERS = {
    "type": "object",
    "properties": {"thing": {"type": "string", "enum": ["kettle"]}},
    "required": ["thing"],
    "additionalProperties": False,
}


class Thing(Enum):
    """What a customer asks about."""

    KETTLE = "kettle"


class Answer(BaseModel):
    """A structured answer."""

    thing: Thing


def main(url: str, key: str) -> None:
    """Run every call."""
    client = OpenAI(base_url=url, api_key=key, max_retries=0)
    print(json.dumps(use_models(client) | use_chats(client) | use_responses(client)))


def use_models(client: OpenAI) -> dict[str, Any]:
    """List and retrieve models."""
    result = {
        "models": [model.id for model in client.models.list()],
        "model": client.models.retrieve("bot").id,
        "version": client.models.retrieve("bot@first").id,
    }
    try:
        client.models.retrieve("other")
    except NotFoundError as error:
        return result | {"missing_model": [error.code, error.param, error.type]}
    raise AssertionError


def use_chats(client: OpenAI) -> dict[str, Any]:
    """Use chat completions: an answer, a stream, a tool, a structured output."""
    limited: Any = {"model": "bot", "messages": MESSAGES, "temperature": 0, "max_completion_tokens": 16}
    chat = client.chat.completions.create(**limited)
    chunks = list(client.chat.completions.create(**limited, stream=True, stream_options={"include_usage": True}))
    random: Any = {"model": "bot", "messages": MESSAGES, "temperature": 2}
    tools: Any = [{"type": "function", "function": {"name": "look_up", "parameters": PARAMETERS, "strict": True}}]
    choice: Any = {"type": "function", "function": {"name": "look_up"}}
    called = client.chat.completions.create(**random, tools=tools, tool_choice=choice)
    parsed = client.chat.completions.parse(**random, response_format=Answer)
    return {
        "chat": [chat.model, chat.choices[0].message.content],
        "chat_stream": [
            chunks[0].model,
            "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices),
            chunks[-1].usage and chunks[-1].usage.completion_tokens,
        ],
        "chat_tool": [call.to_dict()["function"] for call in called.choices[0].message.tool_calls or []],
        "chat_parsed": parsed.choices[0].message.parsed == Answer(thing=Thing.KETTLE),
    }


def use_responses(client: OpenAI) -> dict[str, Any]:
    """Use responses: an answer, a stream, a tool and its result, a structured output, what is refused."""
    limited: Any = {"model": "bot", "temperature": 0, "max_output_tokens": 16}
    response = client.responses.create(**limited, input=QUESTION)
    with client.responses.stream(**limited, input=QUESTION) as stream:
        events = list(stream)
    random: Any = {"model": "bot", "temperature": 2}
    tool: Any = {"type": "function", "name": "look_up", "parameters": PARAMETERS, "strict": True}
    conversation: list[Any] = [{"role": "user", "content": QUESTION}]
    called = client.responses.create(**random, input=conversation, tools=[tool], tool_choice="required")
    call: Any = called.output[0]
    conversation += called.output
    conversation += [{"type": "function_call_output", "call_id": call.call_id, "output": "30 euros"}]
    continued = client.responses.create(**limited, input=conversation, tools=[tool])
    parsed = client.responses.parse(**random, input=QUESTION, text_format=Answer)
    try:
        client.responses.create(**limited, input=QUESTION, previous_response_id=response.id)
    except BadRequestError as error:
        refused = [error.param, error.type, error.code]
    return {
        "response": [response.model, response.output_text, response.status],
        "response_usage": response.usage and response.usage.output_tokens,
        "response_stream": [event.type for event in events],
        "response_stream_text": stream.get_final_response().output_text,
        "response_tool": [call.type, call.name, call.arguments],
        "response_continued": [continued.model, continued.status],
        "response_parsed": parsed.output_parsed == Answer(thing=Thing.KETTLE),
        "response_refused": refused,
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
