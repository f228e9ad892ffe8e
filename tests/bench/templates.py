"""Compares what is trained with what vLLM serves, for every chat template of a folder and many conversations."""

import os
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from conversations import CONVERSATIONS
from template_check import Outcome, TemplateCheck


def measure_templates(root: Path) -> dict[str, Any]:
    """Return how many combinations of a template and a conversation have which outcome.

    The templates are the `*.jinja` files of the folder in the variable TEMPLATES; without it, those of TRL. Each
    combination that is not right is printed.

    Args:
        root: an empty directory for the tokenizers.
    """
    folder = Path(os.environ.get("TEMPLATES") or find_trl_templates())
    outcomes: Counter[str] = Counter()
    for path in sorted(folder.glob("*.jinja")):
        check = TemplateCheck(path.read_text(), root / path.stem)
        for name, conversation in CONVERSATIONS.items():
            result = check.run(conversation)
            outcomes[result.outcome] += 1
            if result.outcome not in ("right", "refused_as_served"):
                print(f"{path.stem}: {name}: {result.outcome}: {result.reason}", flush=True)
    return {"combinations": outcomes.total(), **{outcome: outcomes[outcome] for outcome in get_args(Outcome)}}


def find_trl_templates() -> Path:
    """Return the folder of the chat templates in TRL, without importing it."""
    spec = find_spec("trl")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("trl is not installed")
    return Path(spec.submodule_search_locations[0]) / "chat_templates"
