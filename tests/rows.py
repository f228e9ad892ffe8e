"""Rows for preference training and for GRPO, and the grader of the GRPO prompts."""

PAIRS = [
    {"prompt": f"is thing {number} good?", "chosen": f"yes, {number} is good", "rejected": f"no, {number} is bad"}
    for number in range(40)
]
PROMPTS = [{"prompt": f"say something about {number}", "letter": "e"} for number in range(40)]
GRADER = {"name": "has-letter", "stringCheck": {"operation": "like", "referenceField": "letter"}}
