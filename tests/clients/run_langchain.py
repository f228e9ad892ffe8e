"""Uses the model `bot` through LangChain's ChatOpenAI, and prints what it got as JSON.

The model is random: it ends an answer in JSON only by chance, so that these have a high temperature.
"""

import json
import sys
from typing import Literal

from langchain_openai import ChatOpenAI
from pydantic import BaseModel

QUESTION = "what does thing 7 cost?"


class LookUp(BaseModel):
    """Look up the price of a thing."""

    thing: Literal["kettle"]


def main(url: str, key: str) -> None:
    """Use chats and responses: an answer, a stream, a tool, a structured output."""
    chat = ChatOpenAI(model="bot", base_url=url, api_key=key, temperature=0, max_tokens=16, max_retries=0)
    responses = chat.model_copy(update={"use_responses_api": True})
    random = chat.model_copy(update={"temperature": 2, "max_tokens": None})
    answer = chat.invoke(QUESTION)
    call = random.bind_tools([LookUp], tool_choice="LookUp", strict=True).invoke(QUESTION)
    result = {
        "chat": [answer.response_metadata["model_name"], answer.content],
        "chat_stream": "".join(str(chunk.content) for chunk in chat.stream(QUESTION)),
        "chat_tool": [[call["name"], call["args"]] for call in call.tool_calls],
        "chat_parsed": random.with_structured_output(LookUp, method="json_schema").invoke(QUESTION)
        == LookUp(thing="kettle"),
        "response": responses.invoke(QUESTION).text,
        "response_stream": "".join(chunk.text for chunk in responses.stream(QUESTION)),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
