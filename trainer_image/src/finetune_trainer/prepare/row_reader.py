"""Reads rows of a source into the examples that a job trains on, as its `dataset` and method say. No I/O."""

from dataclasses import dataclass, field
from typing import Any

from finetune_api.data import DataSource, Format, accepted_formats
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.training import Method

from finetune_trainer.prepare.columns import select_columns
from finetune_trainer.prepare.conversions import convert_example
from finetune_trainer.prepare.formats import Example, check_format, detect_format, parse_row, unknown_fields
from finetune_trainer.prepare.normalize import has_python_types
from finetune_trainer.prepare.rewrite import rewrite_row
from finetune_trainer.prepare.row_issues import RowWarning

_TYPES_WARNING = "tools name types as Python does: they are read as JSON's (dict as object, str as string and so on)"


@dataclass(frozen=True)
class ReadRow:
    """What a row becomes."""

    examples: list[Example]
    ignored_fields: set[str]
    warnings: list[RowWarning]


@dataclass(frozen=True)
class RowReader:
    """Reads rows of one source for one job."""

    method: Method
    source_field: str = "dataset.train"
    """The field of the source in the spec, for messages."""
    columns: dict[str, str] = field(default_factory=dict)
    """See `columns` of the source."""
    strips_reasoning: bool = False

    @classmethod
    def of(cls, spec: FineTuneJobSpec, source_field: str, source: DataSource) -> "RowReader":
        """Return the reader of a job's source."""
        strips_reasoning = spec.dataset.reasoning == "Strip"
        columns = dict[str, str]((source.columns or {}).items())
        return cls(spec.method, source_field, columns, strips_reasoning=strips_reasoning)

    def detect_format(self, row: dict[str, Any]) -> Format:
        """Return the format of a row.

        Raises:
            RowError: it has none.
        """
        return detect_format(self._rewrite(row), self.source_field, accepted_formats(self.method.name))

    def read(self, row: dict[str, Any], row_format: Format | None) -> ReadRow:
        """Return what a row becomes.

        Args:
            row: the row as it is in the file.
            row_format: the format of the source; None detects that of the row.

        Raises:
            RowError: the row cannot be used.
        """
        row = self._rewrite(row)
        row_format = row_format or detect_format(row, self.source_field, accepted_formats(self.method.name))
        check_format(row, row_format, self.source_field)
        example = parse_row(row, row_format)
        examples = convert_example(self.method, example, strips_reasoning=self.strips_reasoning)
        has_types = row.get("tools") and has_python_types(row["tools"])
        warnings = [RowWarning("types", _TYPES_WARNING)] if has_types else []
        return ReadRow(examples, unknown_fields(row, row_format), warnings)

    def _rewrite(self, row: dict[str, Any]) -> dict[str, Any]:
        return rewrite_row(select_columns(row, self.columns, self.source_field) if self.columns else row)
