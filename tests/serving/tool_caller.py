"""An adapter that has memorized answers with tool calls and reasoning, from the tokens that training reads."""

import json
from pathlib import Path
from typing import Any

from finetune_pod.chat import IGNORED_LABEL, ChatEncoder, EncodedExample
from finetune_serving.stop_tokens import read_stop_tokens
from serving.vllm_server import add_adapter, save_adapter

TEMPLATE = (
    "{%- if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool.function.name }} {% endfor %}<|im_end|>\n"
    "{%- endif -%}"
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ '' }}"
    "{%- if message.role == 'assistant' %}<think>\n{{ message.reasoning_content or '' }}\n</think>\n\n{% endif -%}"
    "{{ message.content or '' }}"
    "{%- for call in message.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|im_end|>\n{% endfor -%}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{{ '' }}"
    "{%- if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif -%}"
)
"""Writes turns, reasoning and tool calls as Qwen 3 does, but short prompts: each byte is a token here."""
_MIN_LEAD = 0.5
"""By how much the logit of each memorized token must exceed all others."""
_MAX_STEPS = 400


def _build_tool(name: str, /, **properties: Any) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


def _build_call(identity: int, name: str, /, **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": f"call_{identity}", "type": "function", "function": function}


TOOLS = [
    _build_tool("find_parcel", number={"type": "string", "pattern": "^P[0-9]$"}),
    _build_tool("refund", cents={"type": "integer", "minimum": 100, "maximum": 999}, reason={"enum": ["late", "lost"]}),
]
ONE = {"role": "user", "content": "Where is P7?"}
CALLS_ONE = {
    "role": "assistant",
    "content": "",
    "reasoning_content": "I must look.",
    "tool_calls": [_build_call(1, "find_parcel", number="P7")],
}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "in Lyon"}
ANSWER = {"role": "assistant", "content": "P7 is in Lyon."}
TWO = {"role": "user", "content": "Where are P1 and P2?"}
CALLS_TWO = {
    "role": "assistant",
    "content": "",
    "tool_calls": [_build_call(1, "find_parcel", number="P1"), _build_call(2, "find_parcel", number="P2")],
}
GREETING = {"role": "user", "content": "Hello!"}
GREETS = {"role": "assistant", "content": "Good morning.", "reasoning_content": "It is early."}
EXAMPLES: list[dict[str, Any]] = [
    {"messages": [ONE, CALLS_ONE, RESULT, ANSWER], "tools": TOOLS},
    {"messages": [TWO, CALLS_TWO], "tools": TOOLS},
    {"messages": [GREETING, GREETS]},
]


def make_tool_caller(model: Path, directory: Path) -> None:
    """Train an adapter on the examples until it gives each of their answers, and write it."""
    import torch
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    encoder = ChatEncoder(tokenizer, read_stop_tokens(str(model), None, tokenizer))
    encoded = [example for example in encoder.encode(EXAMPLES) if isinstance(example, EncodedExample)]
    rows = [sequence for example in encoded for sequence in example.sequences["messages"]]
    length = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [tokenizer.pad_token_id] * (length - len(row.ids)) for row in rows])
    labels = torch.tensor([[*row.labels, *[IGNORED_LABEL] * (length - len(row.ids))] for row in rows])
    torch.manual_seed(0)
    adapted = add_adapter(model, rank=8)
    optimizer = torch.optim.AdamW((part for part in adapted.parameters() if part.requires_grad), lr=0.003)
    is_target = labels[:, 1:] != IGNORED_LABEL
    targets = labels[:, 1:][is_target].unsqueeze(-1)
    for _ in range(_MAX_STEPS):
        output = adapted(input_ids=ids, labels=labels)
        logits = output.logits[:, :-1][is_target]
        lead = logits.gather(-1, targets) - logits.scatter(-1, targets, -torch.inf).amax(-1, keepdim=True)
        if bool((lead > _MIN_LEAD).all()):
            break
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    else:
        raise AssertionError(f"the answers are not memorized after {_MAX_STEPS} steps: loss {output.loss.item():.3f}")
    save_adapter(adapted, directory)
