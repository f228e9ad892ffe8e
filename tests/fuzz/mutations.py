"""Mutations of every node of a spec: out of bounds, of another type, left out, another branch."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.model import ApiModel
from finetune_api.modelserver import ModelServerSpec
from fuzz.schemas import (
    ABSENT,
    VALUE,
    Node,
    NodePath,
    Schema,
    build_smallest,
    get_at,
    list_choices,
    list_nodes,
    list_samples,
    list_values,
    read_schema,
    set_at,
)
from pydantic import ValidationError

SPECS: dict[str, type[ApiModel]] = {"FineTuneJob": FineTuneJobSpec, "ModelServer": ModelServerSpec}
TEXTS = {
    "an empty text": "",
    "a space": " ",
    "unicode": "größe\u202e漢字😀",
    "a terminal escape": "a\u001b[31m",
    "two lines": "a\nb",
    "a way out": "../..",
    "a very long text": "x" * 70_000,
}

TIMES = {
    "the first year": "0001-01-01T00:00:00Z",
    "before all years": "0000-01-01T00:00:00Z",
    "the last year": "9999-12-31T23:59:59Z",
    "a time without a zone": "2026-01-01T12:00:00",
    "a date": "2026-01-01",
    "another zone": "2026-01-01T12:00:00.123456789+14:00",
    "a leap second": "2016-12-31T23:59:60Z",
    "no time": "yesterday",
}


@dataclass(frozen=True)
class Mutation:
    """A change of one node."""

    kind: str
    node: Node
    what: str
    value: Any
    """The new value; ABSENT removes the node."""

    @property
    def label(self) -> str:
        """A unique label, which repeats the mutation."""
        return f"{self.kind} {'.'.join(self.node.path)}: {self.what}"

    def apply(self, spec: Any) -> Any:
        """Return a copy of a spec with the change."""
        return set_at(spec, self.node.path, self.value)


def list_mutations(kind: str, part: str = "spec") -> Iterator[Mutation]:
    """Return every mutation of every node of a kind's spec or status."""
    for node in list_nodes(read_schema(kind, part)):
        seen: list[Any] = []
        for what, value in list_changes(node.schema):
            if not any(value is other or (type(value) is type(other) and value == other) for other in seen):
                seen.append(value)
                yield Mutation(kind, node, what, value)


@cache
def build_base(kind: str, path: NodePath) -> dict[str, Any]:
    """Return a small valid spec that has a value at a path, with the fields that this value requires.

    Raises:
        LookupError: no such spec was found.
    """
    schema = read_schema(kind, "spec")
    spec = build_smallest(schema, path)
    for candidate in _list_neighbours(schema, spec, path):
        if is_valid(kind, candidate):
            return dict(candidate)
    raise LookupError(f"no valid {kind} was found that has {'.'.join(path)}")


def is_valid(kind: str, spec: Any) -> bool:
    """Return whether a spec passes the validation of its pydantic model."""
    try:
        SPECS[kind].model_validate(spec)
    except ValidationError:
        return False
    return True


def _list_neighbours(schema: Schema, spec: Any, path: NodePath) -> Iterator[Any]:
    """Yield a spec, then variants with one other field changed, then variants with two sibling fields changed."""
    yield spec
    changes = [
        (node.path, value)
        for node in list_nodes(schema)
        if node.path != path[: len(node.path)] and get_at(spec, node.path[:-1]) is not ABSENT
        for value in [*list_values(node.schema), ABSENT]
    ]
    yield from (set_at(spec, where, value) for where, value in changes)
    near = [change for change in changes if is_below(path, change[0][:-1])]
    yield from (set_at(set_at(spec, *first), *second) for first in near for second in near)


def list_changes(schema: Schema) -> Iterator[tuple[str, Any]]:
    yield "left out", ABSENT
    yield "null", None
    match "string" if "x-kubernetes-int-or-string" in schema else schema.get("type"):
        case "integer" | "number":
            yield from _list_numbers(schema)
        case "string":
            yield from _list_texts(schema)
        case "boolean":
            yield from (("true", True), ("false", False), ("a text", "true"), ("a number", 1))
        case "array":
            yield from _list_lists(schema)
        case "object" if "properties" in schema:
            yield from _list_objects(schema)
        case "object":
            yield from _list_maps(schema)
    yield "a list", ["a"]
    yield "an object", {"a": 1}


def _list_numbers(schema: Schema) -> Iterator[tuple[str, Any]]:
    least, most = schema.get("minimum", 0), schema.get("maximum", 1000)
    step = 1 if schema["type"] == "integer" else 0.001
    yield "the least", least
    yield "the most", most
    yield "below the least", least - step
    yield "above the most", most + step
    yield from ((f"one of the enum: {value}", value) for value in schema.get("enum", []))
    yield "nothing", 0
    yield "negative", -1
    yield "a fraction", 0.5
    yield "beyond 32 bits", 2**31
    yield "beyond 64 bits", 2**63
    yield "beyond every integer", 10**30
    yield "a number as text", "1"
    yield "true", True


def _list_texts(schema: Schema) -> Iterator[tuple[str, Any]]:
    yield from TEXTS.items()
    longest = schema.get("maxLength", 256)
    yield "the longest", "x" * longest
    yield "too long", "x" * (longest + 1)
    yield from ((f"valid: {sample}", sample) for sample in list_samples(schema))
    if schema.get("format") == "date-time":
        yield from TIMES.items()
    yield "in capitals", str(list_samples(schema)[0]).upper()
    yield "a number", 5
    yield "true", True


def _list_lists(schema: Schema) -> Iterator[tuple[str, Any]]:
    item = build_smallest(schema["items"])
    yield "empty", []
    yield "one", [item]
    yield "twice the same", [item, item]
    yield "too many", [item] * (schema.get("maxItems", 64) + 1)
    yield "with null", [None]
    yield "a text", "a"
    yield "a number", 1


def _list_maps(schema: Schema) -> Iterator[tuple[str, Any]]:
    filled = build_smallest(schema, (VALUE,))
    value = next(iter(filled.values()))
    yield "empty", {}
    yield "one", filled
    yield from ((f"with {what} as key", {text[:500]: value}) for what, text in TEXTS.items())
    yield "too many", {f"key{number}": value for number in range(schema.get("maxProperties", 64) + 1)}
    yield "with null", {next(iter(filled)): None}
    yield "a text", "a"


def _list_objects(schema: Schema) -> Iterator[tuple[str, Any]]:
    smallest = build_smallest(schema)
    yield "empty", {}
    yield "with an unknown field", smallest | {"noSuchField": 1}
    yield "a text", "a"
    for group in list_choices(schema):
        others = {name: build_smallest(schema, (name,)) for name in group}
        yield from ((f"the branch {name}", value) for name, value in others.items())
        yield "all branches", {name: part for value in others.values() for name, part in value.items()}


def is_below(path: NodePath, other: NodePath) -> bool:
    """Return whether a path is below another one."""
    return path[: len(other)] == other
