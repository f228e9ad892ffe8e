"""Converts pydantic's JSON schema into the structural schema that the API server accepts.

A structural schema has no references, no unions with null and no `const`, and exclusive bounds are flags. The
meaning stays the same; `crd` decides what is in the schema.
"""

import re
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]
_RULES = "x-kubernetes-validations"

_COPIED = (
    "description",
    "type",
    "format",
    "enum",
    "default",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
    _RULES,
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
)
_KNOWN = {
    *_COPIED,
    "title",
    "const",
    "$ref",
    "anyOf",
    "properties",
    "items",
    "additionalProperties",
    "propertyNames",
    "exclusiveMinimum",
    "exclusiveMaximum",
}


def structural_schema(model: type[BaseModel]) -> Schema:
    """Return the structural schema of a model, with camelCase names and all references inlined.

    Raises:
        ValueError: the model uses a keyword that a structural schema does not have.
    """
    schema = model.model_json_schema(by_alias=True)
    return _convert(schema, schema.get("$defs", {}))


def _convert(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    schema = _resolve(schema, definitions)
    unknown = schema.keys() - _KNOWN - {"$defs"}
    if unknown:
        raise ValueError(f"a structural schema cannot have {', '.join(sorted(unknown))}: {schema}")
    result = {key: schema[key] for key in _COPIED if key in schema} | _unwrap_description(schema)
    if "x-kubernetes-int-or-string" in schema:
        result = _allow_integers(result)
    if "const" in schema:
        result["enum"] = [schema["const"]]
    for bound in ("Minimum", "Maximum"):
        if f"exclusive{bound}" in schema:
            result[bound.lower()] = schema[f"exclusive{bound}"]
            result[f"exclusive{bound}"] = True
    if "properties" in schema:
        result["properties"] = {name: _convert(part, definitions) for name, part in schema["properties"].items()}
    if "items" in schema:
        result["items"] = _convert(schema["items"], definitions)
    if schema.get("type") == "object" and "properties" not in schema:
        result |= _convert_map(schema, definitions)
    if "default" in result:
        # The fields of an object have their own defaults, which the API server fills in.
        result["default"] = {} if "properties" in result else _without_nulls(result["default"])
    return result


def _allow_integers(text: Schema) -> Schema:
    """Convert the schema of a text into one that allows an integer too; its rules check the integer as a text."""
    rules = [rule | {"rule": rule["rule"].replace("self", "string(self)", 1)} for rule in text[_RULES]]
    rest = {key: value for key, value in text.items() if key != "type"}
    return rest | {_RULES: rules}


def _unwrap_description(schema: Schema) -> Schema:
    """Return the description with one line per paragraph: `kubectl explain` wraps lines itself."""
    if "description" not in schema:
        return {}
    return {"description": re.sub(r"(?<!\n)\n(?!\n)", " ", schema["description"])}


def _resolve(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """Inline a reference and drop the null of an optional field. The field's description replaces the type's."""
    if "anyOf" in schema:
        parts = [part for part in schema["anyOf"] if part.get("type") != "null"]
        if len(parts) != 1:
            raise ValueError(f"a structural schema cannot have a union of types: {schema}")
        rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
        schema = parts[0] | rest
    if "$ref" in schema:
        target = _resolve(definitions[schema["$ref"].removeprefix("#/$defs/")], definitions)
        rules = [*target.get(_RULES, []), *schema.get(_RULES, [])]
        own = {key: value for key, value in schema.items() if key != "$ref"}
        schema = target | own | ({_RULES: rules} if rules else {})
    return schema


def _convert_map(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """Convert a map. The rules, the length and the list of its keys become validation rules of the map."""
    keys = schema.get("propertyNames", {})
    rules = [
        {"rule": f"self.all(key, {rule['rule'].replace('self', 'key', 1)})", "message": f"keys: {rule['message']}"}
        for rule in keys.get(_RULES, [])
    ]
    if longest := keys.get("maxLength"):
        message = f"keys must have at most {longest} characters"
        rules.append({"rule": f"self.all(key, key.size() <= {longest})", "message": message})
    if names := keys.get("enum"):
        message = f"keys must be one of: {', '.join(names)}"
        rules.append({"rule": f"self.all(key, key in {names})", "message": message})
    values = _convert(schema["additionalProperties"], definitions)
    return {"additionalProperties": values} | ({_RULES: rules} if rules else {})


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]
    return value
