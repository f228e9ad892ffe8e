"""Uses the model `bot` through LlamaIndex's OpenAILike, and prints what it got as JSON."""

import json
import sys

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

MESSAGES = [ChatMessage(role="user", content="what does thing 7 cost?")]


def main(url: str, key: str) -> None:
    """Use a chat and a stream."""
    llm = OpenAILike(model="bot", api_base=url, api_key=key, is_chat_model=True, temperature=0, max_tokens=16)
    result = {
        "chat": llm.chat(MESSAGES).message.content,
        "chat_stream": "".join(chunk.delta or "" for chunk in llm.stream_chat(MESSAGES)),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
