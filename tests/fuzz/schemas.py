"""The generated CustomResourceDefinitions, read as what they say: their nodes, and the smallest value of each.

Everything is derived, so that a new field is taken in by itself.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from fuzz.patterns import spell

Schema = dict[str, Any]
NodePath = tuple[str, ...]
"""Names of properties from the spec on; ITEM is any item of a list, VALUE any value of a map."""

ITEM, VALUE = "[]", "{}"
ABSENT: Any = object()
"""Stands for a value that is not there."""
_CRDS = Path(__file__).parents[2] / "crds"
_KINDS = {"FineTuneJob": "finetunejobs", "ModelServer": "modelservers"}
_MOST_SAMPLES = 12
_MATCHES = r"self\.matches\(r'(.*)'\)"
_EXACTLY_ONE = (
    r"\[.*\]\.exists_one\((\w+), \1\)|\[.*\]\.filter\((\w+), \2\)\.size\(\) == 1|has\(self\.\w+\) != has\(self\.\w+\)"
)


@dataclass(frozen=True)
class Node:
    """A field of a spec or a status, or an item or a value in one."""

    path: NodePath
    schema: Schema

    @property
    def name(self) -> str:
        """The name of the field that a message about it should hold."""
        return next(part for part in reversed(self.path) if part not in (ITEM, VALUE))


@cache
def read_schema(kind: str, part: str) -> Schema:
    """Return the schema of `spec` or `status` of a kind, as it is installed."""
    crd = yaml.safe_load((_CRDS / f"{_KINDS[kind]}.yaml").read_text())
    version = crd["spec"]["versions"][0]
    return dict(version["schema"]["openAPIV3Schema"]["properties"][part])


def list_nodes(schema: Schema, path: NodePath = ()) -> Iterator[Node]:
    """Return every node below a schema: objects, lists and maps too, since each can be missing or be wrong."""
    if path:
        yield Node(path, schema)
    for name, part in schema.get("properties", {}).items():
        yield from list_nodes(part, (*path, name))
    if "items" in schema:
        yield from list_nodes(schema["items"], (*path, ITEM))
    if isinstance(schema.get("additionalProperties"), dict):
        yield from list_nodes(schema["additionalProperties"], (*path, VALUE))


def list_choices(schema: Schema) -> list[list[str]]:
    """Return the groups of properties of which exactly one is given, as the schema's rules say."""
    groups = []
    for rule in schema.get("x-kubernetes-validations", []):
        names = re.findall(r"has\(self\.(\w+)\)", rule["rule"])
        if re.fullmatch(_EXACTLY_ONE, rule["rule"]):
            groups.append(names)
    return groups


def list_changeable(schema: Schema) -> list[str]:
    """Return the fields of a spec that may be changed, as the refusal of all others names them."""
    messages = [rule["message"] for rule in _list_rules(schema)]
    found = next(filter(None, (re.search(r"only (.+) can be changed", message) for message in messages)))
    return re.split(r", | and ", found[1])


def _list_rules(schema: Schema) -> Iterator[dict[str, str]]:
    yield from schema.get("x-kubernetes-validations", [])
    for part in schema.get("properties", {}).values():
        yield from _list_rules(part)


def list_samples(schema: Schema) -> list[Any]:
    """Return valid values of a scalar, the plainest first."""
    match schema.get("type"):
        case "boolean":
            return [False, True]
        case "integer" | "number":
            return list(schema.get("enum", [])) or _list_numbers(schema)
    if "enum" in schema:
        return list(schema["enum"])
    rules = [re.fullmatch(_MATCHES, one["rule"]) for one in schema.get("x-kubernetes-validations", [])]
    patterns = [*([schema["pattern"]] if "pattern" in schema else []), *(found[1] for found in rules if found)]
    if schema.get("format") == "date-time":
        return ["2026-01-01T00:00:00Z"]
    if not patterns:
        return ["a" * max(1, schema.get("minLength", 0))]
    return list(islice(spell(patterns[0]), _MOST_SAMPLES))


def _list_numbers(schema: Schema) -> list[float]:
    whole = schema["type"] == "integer"
    step = 1 if whole else 0.01
    least = schema.get("minimum", 0) + (step if schema.get("exclusiveMinimum") else 0)
    most = schema.get("maximum", least + 10) - (step if schema.get("exclusiveMaximum") else 0)
    return [int(one) if whole else one for one in (least, most)]


def build_smallest(schema: Schema, path: NodePath = ()) -> Any:
    """Return the smallest value that a schema takes and that holds something at a path."""
    match schema.get("type"):
        case "object" if "properties" in schema:
            return {name: build_smallest(part, rest) for name, part, rest in _list_needed(schema, path)}
        case "object":
            if not path:
                return {}
            ((key, _),) = [(key, None) for key in islice(_list_keys(schema), 1)]
            return {key: build_smallest(schema["additionalProperties"], path[1:])}
        case "array":
            count = max(schema.get("minItems", 0), 1 if path else 0)
            return [build_smallest(schema["items"], path[1:]) for _ in range(count)]
    return list_samples(schema)[0]


def _list_needed(schema: Schema, path: NodePath) -> Iterator[tuple[str, Schema, NodePath]]:
    """Return the properties that an object needs, that on the path first, with the rest of the path."""
    on_path = path[0] if path else None
    needed = {name for name in schema.get("required", []) if "default" not in schema["properties"][name]}
    for group in list_choices(schema):
        if not needed & set(group):
            needed.add(on_path if on_path in group else group[0])
    for name, part in schema["properties"].items():
        if name == on_path:
            yield name, part, path[1:]
        elif name in needed:
            yield name, part, ()


def _list_keys(schema: Schema) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", []):
        if found := re.search(r"key\.matches\(r'(.*)'\)", rule["rule"]):
            yield from spell(found[1])
    yield "key"


def list_values(schema: Schema) -> list[Any]:
    """Return a few valid values of any node."""
    if schema.get("type") in ("object", "array"):
        return [build_smallest(schema)]
    return list_samples(schema)


def get_at(value: Any, path: NodePath) -> Any:
    """Return what is at a path, ABSENT where nothing is."""
    for part in path:
        if isinstance(value, dict) and part == VALUE:
            value = next(iter(value.values()), ABSENT)
        elif isinstance(value, list) and part == ITEM:
            value = value[0] if value else ABSENT
        elif isinstance(value, dict):
            value = value.get(part, ABSENT)
        else:
            return ABSENT
    return value


def set_at(value: Any, path: NodePath, new: Any) -> Any:
    """Return a copy with something else at a path; ABSENT takes it away."""
    if not path:
        return new
    part, rest = path[0], path[1:]
    if part == ITEM:
        items = value if isinstance(value, list) else []
        first = set_at(items[0] if items else ABSENT, rest, new)
        return ([] if first is ABSENT else [first]) + items[1:]
    if part == VALUE:
        part = next(iter(value)) if isinstance(value, dict) and value else "key"
    known = dict(value) if isinstance(value, dict) else {}
    changed = set_at(known.get(part, ABSENT), rest, new)
    known.pop(part, None)
    return known if changed is ABSENT else known | {part: changed}


def with_node(value: Any, schema: Schema, path: NodePath) -> Any:
    """Return a value that has something at a path: where nothing is yet, the smallest that the schema takes."""
    if value is ABSENT:
        return build_smallest(schema, path)
    if not path:
        return value
    part, rest = path[0], path[1:]
    if part == ITEM:
        return [with_node(value[0] if value else ABSENT, schema["items"], rest), *value[1:]]
    if part == VALUE:
        key = next(iter(value), "key")
        return value | {key: with_node(value.get(key, ABSENT), schema["additionalProperties"], rest)}
    return value | {part: with_node(value.get(part, ABSENT), schema["properties"][part], rest)}


@cache
def validator(kind: str, part: str) -> jsonschema.Draft4Validator:
    """Return what checks a spec or a status as the API server does: its schemas are of Draft 4, with extensions."""
    return jsonschema.Draft4Validator(read_schema(kind, part))


def is_admitted(kind: str, manifest: dict[str, Any]) -> bool:
    """Tell whether the API server could hold an object, as far as its schema says."""
    return all(validator(kind, part).is_valid(manifest.get(part, {})) for part in ("spec", "status"))


def explain_status(kind: str, status: Any) -> str:
    """Return what is wrong with a status that the operator would write; empty where nothing is."""
    try:
        text = json.dumps(status, allow_nan=False)
        text.encode()
    except ValueError as error:
        return f"it is no JSON: {error}"
    found = validator(kind, "status").iter_errors(json.loads(text))
    return "; ".join(f"{'.'.join(map(str, one.absolute_path))}: {one.message[:200]}" for one in islice(found, 3))
