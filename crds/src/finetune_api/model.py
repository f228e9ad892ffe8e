"""The base class of all API types: camelCase in JSON, frozen, with rules for the API server and for pydantic."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel, to_snake
from pydantic_core import CoreSchema

Time = Annotated[datetime, AfterValidator(lambda time: time if time.tzinfo else time.replace(tzinfo=UTC))]
"""A point in time. Without a time zone it is in UTC."""


@dataclass(frozen=True)
class Rule:
    """A validation rule over several fields: as CEL for the API server, and as a predicate for pydantic.

    `holds` is None if the rule compares an object with its previous version, such as immutability.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool] | None = None


def exactly_one(what: str, names: Sequence[str]) -> Rule:
    """Return the rule that exactly one of several fields is set. Each name must be a single word."""
    present = ", ".join(f"has(self.{name})" for name in names)
    return Rule(
        f"[{present}].exists_one(present, present)",
        f"set exactly one {what}: {', '.join(names)}",
        lambda part: sum(getattr(part, name) is not None for name in names) == 1,
    )


def not_both(first: str, second: str) -> Rule:
    """Return the rule that two fields, by their names in a manifest, are not both set."""
    fields = (to_snake(first), to_snake(second))
    return Rule(
        f"!(has(self.{first}) && has(self.{second}))",
        f"set {first} or {second}, not both",
        lambda part: any(getattr(part, name) is None for name in fields),
    )


class ApiModel(BaseModel):
    """A part of the API. Unknown fields are ignored, so that an older program can read newer objects."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
        # Validators are built on first use: every program imports the whole API and uses a part of it.
        defer_build=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    immutable: ClassVar[tuple[str, ...]] = ()
    """Names of fields that cannot be changed, added or removed after the object was created."""
    immutable_message: ClassVar[str] = ""
    """Error message for a user who tries."""

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
            # On the field itself: that costs the API server almost nothing when a status is written.
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
        """Return the object as JSON types with camelCase names, without unset fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
