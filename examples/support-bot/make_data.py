"""Writes the conversations of a small web shop: `python make_data.py`. It is seeded, so the files are reproducible.

The held-out conversations ask the same questions in other words, so that a model that memorized the questions fails.
"""

import json
import random
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SYSTEM = "You are the support assistant of Northlight."
ITEMS = ("lamp", "tent", "kettle", "backpack", "blanket", "stove", "mug", "jacket", "lantern", "chair")

# By topic: the questions of the training part, those of the held-out part, and Northlight's answer.
TOPICS: dict[str, tuple[list[str], list[str], str]] = {
    "return": (
        [
            "How do I return my {item}?",
            "I want to send the {item} back.",
            "Can I return the {item}?",
            "What do I do to return a {item}?",
            "The {item} is not for me. Can I return it?",
        ],
        ["Hello, how can I return my {item}?", "I changed my mind about the {item}, can I send it back?"],
        "You can return the {item} within 45 days, free of charge. Print the label at northlight.example/returns.",
    ),
    "delivery": (
        [
            "When will my {item} arrive?",
            "How long does delivery of the {item} take?",
            "Where is my {item}?",
            "I wait for my {item}. When does it come?",
            "How fast do you ship a {item}?",
        ],
        ["Hi, when does my {item} come?", "I ordered a {item}, how long will it take?"],
        "We ship every weekday at noon. Your {item} arrives in two days, and tracking is at northlight.example/track.",
    ),
    "warranty": (
        [
            "Does the {item} have a warranty?",
            "My {item} is broken. What can I do?",
            "How long is the warranty of the {item}?",
            "The {item} does not work any more.",
            "What if my {item} breaks?",
        ],
        ["Is there a warranty on the {item}?", "Hello, my {item} broke, what now?"],
        "Every {item} from Northlight has a six year warranty. Send a photo to care@northlight.example and we replace it.",
    ),
    "price": (
        [
            "How much is shipping for the {item}?",
            "What does delivery of a {item} cost?",
            "Do I pay for shipping of the {item}?",
            "Is shipping of the {item} free?",
            "What are the shipping costs for a {item}?",
        ],
        ["Hi, what does shipping of the {item} cost?", "Do you ship the {item} for free?"],
        "Shipping of the {item} costs 3 euros, and it is free for orders above 40 euros.",
    ),
    "hours": (
        [
            "When can I call you about my {item}?",
            "What are your opening hours? I have a question about the {item}.",
            "Can I phone you about the {item}?",
            "How can I reach you about my {item}?",
            "Is someone there on Saturday to talk about the {item}?",
        ],
        ["Hello, when are you open? It is about my {item}.", "How do I call you about the {item}?"],
        "Call us about the {item} at 555-0142 from Monday to Friday, 9 to 17. On Saturday write to care@northlight.example.",
    ),
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "order_status",
            "description": "Look up an order.",
            "parameters": {
                "type": "object",
                "properties": {"order": {"type": "string", "pattern": "^N[0-9]{4}$"}},
                "required": ["order"],
                "additionalProperties": False,
            },
        },
    }
]
STATES = {
    "packed": "Order {order} is packed and leaves us at noon.",
    "shipped": "Order {order} is on its way. Tracking is at northlight.example/track.",
    "delivered": "Order {order} was delivered. If it is not there, call us at 555-0142.",
}
ORDER_QUESTIONS = ["Where is order {order}?", "What is the status of order {order}?", "Has order {order} left yet?"]
HELDOUT_ORDER_QUESTIONS = ["Hi, can you look up order {order}?", "Is my order {order} on its way?"]


def build_conversations(*, heldout: bool, seed: int) -> list[dict[str, Any]]:
    """Return the conversations of one part, shuffled."""
    conversations = [
        _chat(question.format(item=item), answer.format(item=item))
        for questions, other_questions, answer in TOPICS.values()
        for item in ITEMS
        for question in (other_questions if heldout else questions)
    ]
    order_questions = HELDOUT_ORDER_QUESTIONS if heldout else ORDER_QUESTIONS
    numbers = range(9000, 9010) if heldout else range(1000, 1050)
    for number in numbers:
        state = list(STATES)[number % len(STATES)]
        question = order_questions[number % len(order_questions)]
        conversations.append(_order_chat(question, f"N{number}", state))
    random.Random(seed).shuffle(conversations)
    return conversations


def _chat(question: str, answer: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


def _order_chat(question: str, order: str, state: str) -> dict[str, Any]:
    call = {
        "id": f"call_{order}",
        "type": "function",
        "function": {"name": "order_status", "arguments": json.dumps({"order": order})},
    }
    return {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": question.format(order=order)},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": json.dumps({"state": state})},
            {"role": "assistant", "content": STATES[state].format(order=order)},
        ],
        "tools": TOOLS,
    }


def render_file(conversations: list[dict[str, Any]]) -> str:
    """Return the text of a JSONL file."""
    return "".join(json.dumps(conversation, ensure_ascii=False) + "\n" for conversation in conversations)


def main() -> None:
    """Write both files."""
    (HERE / "train.jsonl").write_text(render_file(build_conversations(heldout=False, seed=1)))
    (HERE / "heldout.jsonl").write_text(render_file(build_conversations(heldout=True, seed=2)[:45]))


if __name__ == "__main__":
    main()
