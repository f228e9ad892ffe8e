"""What the name of a data file says: its format and its compression."""

from pathlib import Path

FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
"""Suffixes that may follow the suffix of the format, and pyarrow's names for these compressions."""


def format_of(path: Path) -> str:
    """Return the suffix of a file's format, without the suffix of a compression."""
    name = path.name.lower()
    for suffix in COMPRESSIONS:
        name = name.removesuffix(suffix)
    return Path(name).suffix


def is_data_file(path: Path) -> bool:
    """Return whether the suffix of a file is that of a data format, compressed or not."""
    return format_of(path) in FORMATS
