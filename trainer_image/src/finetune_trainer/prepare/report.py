"""The report of the prepare stage: what was read, what is wrong with it, and statistics."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_trainer.prepare.scan import SourceScan


@dataclass
class PrepareReport:
    """`report/prepare.json`, filled as the stage proceeds."""

    path: Path
    sources: list[dict[str, Any]] = field(default_factory=list)
    """Where model and data come from, as `describe_files` returns it."""
    scans: list[SourceScan] = field(default_factory=list)

    def write(self, statistics: dict[str, Any]) -> None:
        """Write the report."""
        report = {
            "sources": self.sources,
            "files": [_describe_scan(scan) for scan in self.scans],
            "statistics": statistics,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(report, indent=1, ensure_ascii=False))


def _describe_scan(scan: SourceScan) -> dict[str, Any]:
    return {
        "uri": scan.uri,
        "format": scan.format,
        f"{scan.unit}s": scan.rows,
        "wrong": scan.invalid_rows,
        "counts": dict(scan.errors.counts),
        "errors": scan.errors.to_list(),
        "warningCounts": dict(scan.warnings.counts),
        "warnings": scan.warnings.to_list(),
        "ignoredFields": dict(scan.ignored_fields),
    }
