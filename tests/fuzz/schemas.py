"""Reads the generated CustomResourceDefinitions: their nodes, and the smallest valid value of each.

All values are derived from the schemas, so that new fields are covered without changes here.
"""

import ast
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
"""Marks a missing value."""
_CRDS = Path(__file__).parents[2] / "crds"
_KINDS = {"FineTuneJob": "finetunejobs", "ModelServer": "modelservers"}
_MAX_SAMPLES = 12
_MATCHES = r"(?:self|string\(self\))\.matches\(r'(.*)'\)"
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
        """Name of the field that an error message about it should contain."""
        return next(part for part in reversed(self.path) if part not in (ITEM, VALUE))


@cache
def read_schema(kind: str, part: str) -> Schema:
    """Return the schema of `spec` or `status` of a kind from its CRD."""
    crd = yaml.safe_load((_CRDS / f"{_KINDS[kind]}.yaml").read_text())
    version = crd["spec"]["versions"][0]
    return dict(version["schema"]["openAPIV3Schema"]["properties"][part])


def list_nodes(schema: Schema, path: NodePath = ()) -> Iterator[Node]:
    """Yield every node below a schema, including objects, lists and maps, since each can be missing or wrong."""
    if path:
        yield Node(path, schema)
    for name, part in schema.get("properties", {}).items():
        yield from list_nodes(part, (*path, name))
    if "items" in schema:
        yield from list_nodes(schema["items"], (*path, ITEM))
    if isinstance(schema.get("additionalProperties"), dict):
        yield from list_nodes(schema["additionalProperties"], (*path, VALUE))


def list_choices(schema: Schema) -> list[list[str]]:
    """Return the groups of properties of which exactly one must be set, by the schema's rules."""
    groups = []
    for rule in schema.get("x-kubernetes-validations", []):
        names = re.findall(r"has\(self\.(\w+)\)", rule["rule"])
        if re.fullmatch(_EXACTLY_ONE, rule["rule"]):
            groups.append(names)
    return groups


def list_changeable(schema: Schema) -> list[str]:
    """Return the mutable fields of a spec, as the message for all other fields lists them."""
    messages = [rule["message"] for rule in _list_rules(schema)]
    match = next(filter(None, (re.search(r"only (.+) can be changed", message) for message in messages)))
    return re.split(r", | and ", match[1])


def _list_rules(schema: Schema) -> Iterator[dict[str, str]]:
    yield from schema.get("x-kubernetes-validations", [])
    for part in schema.get("properties", {}).values():
        yield from _list_rules(part)


def list_samples(schema: Schema) -> list[Any]:
    """Return valid values of a scalar, the simplest first."""
    match schema.get("type"):
        case "boolean":
            return [False, True]
        case "integer" | "number":
            return list(schema.get("enum", [])) or _list_numbers(schema)
    if "enum" in schema:
        return list(schema["enum"])
    rules = [re.fullmatch(_MATCHES, rule["rule"]) for rule in schema.get("x-kubernetes-validations", [])]
    patterns = [*([schema["pattern"]] if "pattern" in schema else []), *(match[1] for match in rules if match)]
    if schema.get("format") == "date-time":
        return ["2026-01-01T00:00:00Z"]
    if not patterns:
        return ["a" * max(1, schema.get("minLength", 0))]
    return list(islice(spell(patterns[0]), _MAX_SAMPLES))


def _list_numbers(schema: Schema) -> list[float]:
    whole = schema["type"] == "integer"
    step = 1 if whole else 0.01
    least = schema.get("minimum", 0) + (step if schema.get("exclusiveMinimum") else 0)
    most = schema.get("maximum", least + 10) - (step if schema.get("exclusiveMaximum") else 0)
    return [int(number) if whole else number for number in (least, most)]


def build_smallest(schema: Schema, path: NodePath = ()) -> Any:
    """Return the smallest value that matches a schema and has a value at a path."""
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
    """Yield the required properties of an object and the one on the path, each with the rest of the path."""
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
        if match := re.search(r"key\.matches\(r'(.*)'\)", rule["rule"]):
            yield from spell(match[1])
        if match := re.search(r"key in (\[.*\])", rule["rule"]):
            yield from ast.literal_eval(match[1])
    yield "key"


def list_values(schema: Schema) -> list[Any]:
    """Return a few valid values of a node."""
    if schema.get("type") in ("object", "array"):
        return [build_smallest(schema)]
    return list_samples(schema)


def get_at(value: Any, path: NodePath) -> Any:
    """Return the value at a path; ABSENT where it is missing."""
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
    """Return a copy with a new value at a path; ABSENT removes it."""
    if not path:
        return new
    part, rest = path[0], path[1:]
    if part == ITEM:
        items = value if isinstance(value, list) else []
        first = set_at(items[0] if items else ABSENT, rest, new)
        return ([] if first is ABSENT else [first]) + items[1:]
    if part == VALUE:
        part = next(iter(value)) if isinstance(value, dict) and value else "key"
    fields = dict(value) if isinstance(value, dict) else {}
    changed = set_at(fields.get(part, ABSENT), rest, new)
    fields.pop(part, None)
    return fields if changed is ABSENT else fields | {part: changed}


def with_node(value: Any, schema: Schema, path: NodePath) -> Any:
    """Return a copy that has a value at a path: the existing one, or the smallest that matches the schema."""
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
    """Return a validator of a spec or a status: CRD schemas are JSON Schema Draft 4 with extensions."""
    return jsonschema.Draft4Validator(read_schema(kind, part))


def is_admitted(kind: str, manifest: dict[str, Any]) -> bool:
    """Return whether an object matches its schema, without the rules of the schema."""
    return all(validator(kind, part).is_valid(manifest.get(part, {})) for part in ("spec", "status"))


def explain_status(kind: str, status: Any) -> str:
    """Return the errors of a status that the operator would write; empty where there is none."""
    try:
        text = json.dumps(status, allow_nan=False)
        text.encode()
    except ValueError as error:
        return f"it is not valid JSON: {error}"
    errors = validator(kind, "status").iter_errors(json.loads(text))
    return "; ".join(f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in islice(errors, 3))
