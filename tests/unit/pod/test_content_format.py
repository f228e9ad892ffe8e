"""Whether a chat template iterates over the parts of a content; tests/contract compares the answers with vLLM's."""

import pytest
from finetune_pod.content_format import iterates_content
from jinja2 import Environment


@pytest.mark.parametrize(
    ("template", "iterates"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", False),
        ("{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}", True),
        ("{% for m in messages %}{% for part in m['content'] | list %}{{ part }}{% endfor %}{% endfor %}", True),
        ("{% set rest = messages[1:] %}{% for m in rest %}{% for part in m.content %}{% endfor %}{% endfor %}", True),
        ("{% for m in messages %}{% set content = m.content %}{% for part in content %}{% endfor %}{% endfor %}", True),
        ("{% for m in messages %}{% for call in m.tool_calls %}{{ call }}{% endfor %}{% endfor %}", False),
        (
            (
                "{% macro show(text) %}{% for part in text %}{{ part }}{% endfor %}{% endmacro %}"
                "{% for m in messages %}{{ show(m.content) }}{% endfor %}"
            ),
            True,
        ),
        (
            (
                "{% macro show(text) %}{% for part in text %}{{ part }}{% endfor %}{% endmacro %}"
                "{% for m in messages %}{{ show(text=m.content) }}{% endfor %}"
            ),
            True,
        ),
        (
            (
                "{% macro show(content) %}{% for part in content %}{{ part }}{% endfor %}{% endmacro %}"
                "{% for m in messages %}{{ show(m.tools) }}{% endfor %}"
            ),
            False,
        ),
        ("{% for k, v in messages %}{% for part in m.content %}{% endfor %}{% endfor %}", False),
    ],
)
def test_loops_over_contents_are_found(template: str, iterates: bool) -> None:
    assert iterates_content(Environment().parse(template)) is iterates  # noqa: S701 - nothing is rendered
