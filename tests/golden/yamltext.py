"""YAML for readers: short values in one line, long strings as blocks, no aliases."""

from typing import Any

import yaml

_WIDTH = 120
_LINE = 100
"""Maximum characters of a mapping or list in one line, without its indentation and key."""
_LONG_TEXT = 80


def dump(value: Any) -> str:
    """Return a value as YAML; the same value gives the same text."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        """Write equal objects in full instead of as aliases."""
        return True

    def serialize(self, node: yaml.Node) -> None:
        """Write the outermost mapping or list in block style, however short it is."""
        if isinstance(node, yaml.CollectionNode):
            node.flow_style = False
        super().serialize(node)


def _represent_mapping(dumper: _Dumper, value: dict[str, Any]) -> yaml.Node:
    return dumper.represent_mapping("tag:yaml.org,2002:map", value.items(), flow_style=_fits_line(value))


def _represent_list(dumper: _Dumper, value: list[Any]) -> yaml.Node:
    node = dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=_fits_line(value))
    for item in node.value:
        if isinstance(item, yaml.MappingNode) and len(item.value) == 1:
            # The dash already shows that it is one item.
            item.flow_style = False
    return node


def _represent_text(dumper: _Dumper, value: str) -> yaml.Node:
    style = "|" if "\n" in value else ">" if len(value) > _LONG_TEXT else None
    if not value.replace("\n", "").isprintable():
        # Only double quotes keep the other line breaks of YAML, such as U+2028.
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _fits_line(value: dict[str, Any] | list[Any], deepest: int = 2) -> bool:
    """Return whether a value may be written in one line: it is short, has no list of mappings and no third level."""
    items = list(value.values()) if isinstance(value, dict) else value
    return len(str(value).replace("'", "")) <= _LINE and all(
        deepest > 1 and isinstance(value, dict) and _fits_line(item, deepest - 1)
        if isinstance(item, dict | list)
        else len(str(item)) <= _LONG_TEXT and "\n" not in str(item)
        for item in items
    )


_Dumper.add_representer(dict, _represent_mapping)
_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(str, _represent_text)
