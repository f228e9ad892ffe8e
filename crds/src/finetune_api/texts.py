"""Texts of a user that must match a pattern.

An error shows a message that says what to write. The error of a pattern in the schema shows the regular expression.
"""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class Text:
    """Annotation of a text: `Annotated[str, Text(...)]`. The API server checks it with a rule in CEL."""

    pattern: str
    """Regular expression that means the same to Python and to RE2."""
    message: str
    """What to write, with an example."""
    max_length: int
    """Maximum number of characters. It also bounds the cost of the rule."""

    def check(self, text: str) -> str:
        """Return the text.

        Raises:
            ValueError: it does not match the pattern.
        """
        if re.fullmatch(self.pattern, text) is None:
            raise ValueError(self.message)
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema of pydantic's validator."""
        del source, handler
        return core_schema.no_info_after_validator_function(
            self.check, core_schema.str_schema(max_length=self.max_length)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return the schema for the API server."""
        rule = {"rule": f"self.matches(r'{self.pattern}')", "message": self.message}
        return handler(schema) | {"x-kubernetes-validations": [rule]}


DASHED = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
DASHED_MESSAGE = "use lowercase letters and digits, with dashes inside, such as team-a"
