"""URIs of models, data and results."""

import pytest
from finetune_api.uris import Uri, parse_uri


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("hf://org/name", Uri("hf", "org/name", "")),
        ("hf://org/name/data/train.jsonl", Uri("hf", "org/name", "data/train.jsonl")),
        ("pvc://claim/a/b", Uri("pvc", "claim", "a/b")),
        ("s3://my.bucket/a/b.jsonl", Uri("s3", "my.bucket", "a/b.jsonl")),
        ("https://example.com:8443/a/b.jsonl", Uri("https", "example.com:8443", "a/b.jsonl")),
        ("finetunejob://first", Uri("finetunejob", "first", "")),
        ("s3://bucket", Uri("s3", "bucket", "")),
        ("configmap://data/train.jsonl", Uri("configmap", "data", "train.jsonl")),
    ],
)
def test_uris_are_taken_apart_and_put_together(text: str, uri: Uri) -> None:
    assert parse_uri(text) == uri
    assert str(uri) == text
