"""The base of every API type: camelCase on the wire, frozen, with rules for the API server and for us."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel, to_snake
from pydantic_core import CoreSchema

Time = Annotated[datetime, AfterValidator(lambda time: time if time.tzinfo else time.replace(tzinfo=UTC))]
"""A point in time; one that names no zone is in UTC."""


@dataclass(frozen=True)
class Rule:
    """A relation between fields, once for the API server (CEL) and once for whoever reads the object.

    `holds` is None where the relation cannot be seen from one object alone, as with immutability.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool] | None = None


def exactly_one(what: str, names: Sequence[str]) -> Rule:
    """Return the rule that one field of several is given; each name is one word."""
    given = ", ".join(f"has(self.{name})" for name in names)
    return Rule(
        f"[{given}].exists_one(one, one)",
        f"choose exactly one {what}: {', '.join(names)}",
        lambda part: sum(getattr(part, name) is not None for name in names) == 1,
    )


def not_both(first: str, second: str) -> Rule:
    """Return the rule that two fields, by their names in a manifest, are not given together."""
    fields = (to_snake(first), to_snake(second))
    return Rule(
        f"!(has(self.{first}) && has(self.{second}))",
        f"give {first} or {second}, not both",
        lambda part: any(getattr(part, name) is None for name in fields),
    )


class ApiModel(BaseModel):
    """A part of the API. Unknown fields are ignored, so that an older program survives newer objects."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
        # Built when it is used first: every program imports all of the API, and most use a part of it.
        defer_build=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    immutable: ClassVar[tuple[str, ...]] = ()
    """Names of fields that cannot be changed, added or removed once the object exists."""
    immutable_message: ClassVar[str] = ""
    """What a user is told who tries."""

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        for rule in self.rules:
            if rule.holds is not None and not rule.holds(self):
                raise ValueError(rule.message)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return the schema with the rules as `x-kubernetes-validations`."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        rules = [{"rule": rule.cel, "message": rule.message} for rule in cls.rules]
        for name in map(to_camel, cls.immutable):
            # On the field itself, so that it costs next to nothing when a status is written.
            part = schema["properties"][name]
            same = {"rule": "self == oldSelf", "message": cls.immutable_message}
            part["x-kubernetes-validations"] = [*part.get("x-kubernetes-validations", []), same]
            if name not in schema.get("required", []) and part.get("default") is None:
                message = f"{name}: {cls.immutable_message}"
                rules.append({"rule": f"has(self.{name}) == has(oldSelf.{name})", "message": message})
        if rules:
            schema["x-kubernetes-validations"] = rules
        return schema

    def to_dict(self) -> dict[str, Any]:
        """Return the object as JSON types with camelCase names, without the fields that are not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
