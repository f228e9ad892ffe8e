"""Which host a list names, and which is a cloud's metadata service."""

import pytest
from finetune_api.hosts import find_host_entry, is_metadata_url


@pytest.mark.parametrize(
    ("host", "entry"),
    [
        ("data.example.com", "data.example.com"),
        ("data.example.com:8443", None),
        ("other.org:8443", "other.org:8443"),
        ("a.b.mirror.org", "*.mirror.org"),
        ("mirror.org", None),
        ("evilmirror.org", None),
        ("data.example.com.evil.org", None),
    ],
)
def test_a_host_is_listed_by_its_name_or_by_a_domain_above_it(host: str, entry: str | None) -> None:
    assert find_host_entry(host, ["data.example.com", "other.org:8443", "*.mirror.org"]) == entry


@pytest.mark.parametrize(
    ("url", "is_metadata"),
    [
        ("http://169.254.169.254:80/latest", True),
        ("http://2852039166/", True),
        ("http://0xA9FEA9FE", True),
        ("http://0251.0376.0251.0376", True),
        ("http://169.16689662", True),
        ("http://METADATA.google.internal/x", True),
        ("http://metadata", True),
        ("http://metadata-store:5000", False),
        ("http://ml.metadata.svc/", False),
        ("http://mlflow.v1:5000", False),
        ("http://10.0.0.5:5000/x", False),
    ],
)
def test_an_address_of_a_metadata_service_is_known_in_every_form(url: str, is_metadata: bool) -> None:
    assert is_metadata_url(url) is is_metadata
