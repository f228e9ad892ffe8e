"""Data files by their names: format, compression, and what their rows are counted in."""

from pathlib import Path

FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
"""Suffixes that may follow that of the format, and pyarrow's names for them."""


def format_of(path: Path) -> str:
    """Return the suffix that names a file's format; a compression's suffix after it is ignored."""
    name = path.name.lower()
    for suffix in COMPRESSIONS:
        name = name.removesuffix(suffix)
    return Path(name).suffix


def is_data_file(path: Path) -> bool:
    """Return whether the name of a file ends like that of a data file."""
    return format_of(path) in FORMATS


def unit_of(path: Path) -> str:
    """Return what the rows of a file are counted in, for messages: `line` or `row`."""
    return "line" if format_of(path) in (".jsonl", ".ndjson", ".csv", ".tsv") else "row"
