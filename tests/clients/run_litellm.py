"""Uses the model `bot` through litellm, and prints what it got as JSON."""

import json
import sys
from typing import Any

import litellm

QUESTION = "what does thing 7 cost?"


def main(url: str, key: str) -> None:
    """Use a chat, a stream and a response, and send too much."""
    litellm.suppress_debug_info = True
    server: Any = {"model": "openai/bot", "api_base": url, "api_key": key, "temperature": 0}
    chat: Any = server | {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 16}
    answer = litellm.completion(**chat)
    stream = litellm.completion(**chat, stream=True)
    response = litellm.responses(**server, input=QUESTION, max_output_tokens=16)
    result: dict[str, Any] = {
        "chat": [answer.model, answer.choices[0].message.content, answer.usage.completion_tokens],
        "chat_stream": "".join(chunk.choices[0].delta.content or "" for chunk in stream),
        "response": [response.model, response.output[0].content[0].text],
    }
    try:
        litellm.completion(**server, messages=[{"role": "user", "content": "x" * 5000}])
    except litellm.ContextWindowExceededError:
        result["too_long"] = True
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
