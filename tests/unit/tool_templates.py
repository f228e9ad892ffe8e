"""Chat templates with different formats of tool calls, and a tool."""

from finetune_pod.toolcalls import ToolFormat, learn_format
from jinja2 import Template

HERMES = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    '{% for call in message.tool_calls or [] %}\n<tool_call>\n{"name": "{{ call.function.name }}", "arguments": '
    "{{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = HERMES.replace("<tool_call>\n", "").replace("\n</tool_call>", "").replace('arguments": ', 'parameters": ')
PYTHONIC = HERMES.replace('{"name": "{{ call.function.name }}", "arguments": ', "[{{ call.function.name }}(").replace(
    "{{ call.function.arguments | tojson }}}",
    "{% for key, value in call.function.arguments.items() %}{{ key }}={{ value }}{% endfor %})]",
)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


def learn(template: str) -> ToolFormat | None:
    return learn_format(
        lambda messages, tools, *, prompts: Template(template).render(
            messages=messages, tools=tools, add_generation_prompt=prompts
        )
    )
