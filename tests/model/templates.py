"""A chat template for models that have none, as a user would put it into a ConfigMap."""

import json
from pathlib import Path
from typing import Any

URI = "configmap://templates/chat.jinja"
TEMPLATE = (
    "{%- for message in messages %}[{{ message.role }}] {{ message.content }}{{ eos_token }}\n{% endfor -%}"
    "{%- if add_generation_prompt %}[assistant] {% endif -%}\n"
)


def write_template(root: Path, text: str = TEMPLATE) -> None:
    """Write the template where a pod has the ConfigMap, below a root."""
    path = root / "configmaps" / "templates" / "chat.jinja"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def remove_template(model: Path) -> Path:
    """Remove a model's own chat template, and return the model."""
    (model / "chat_template.jinja").unlink()
    path = model / "tokenizer_config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    config.pop("chat_template", None)
    path.write_text(json.dumps(config))
    return model
