"""Gets a structured answer of the model `bot` through instructor, and prints it as JSON."""

import sys
from typing import Any, Literal

import instructor
from openai import OpenAI
from pydantic import BaseModel

MESSAGES: Any = [{"role": "user", "content": "what does thing 7 cost?"}]


class LookUp(BaseModel):
    """Look up the price of a thing."""

    thing: Literal["kettle"]


def main(url: str, key: str) -> None:
    """Use a JSON schema. The model is random: at a temperature of 0 it may never end the JSON."""
    openai = OpenAI(base_url=url, api_key=key, max_retries=0)
    client = instructor.from_openai(openai, mode=instructor.Mode.JSON_SCHEMA)
    answer = client.chat.completions.create(
        model="bot", messages=MESSAGES, response_model=LookUp, max_retries=0, temperature=2
    )
    print(answer.model_dump_json())


if __name__ == "__main__":
    main(*sys.argv[1:])
