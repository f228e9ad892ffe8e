"""API keys: identity, allowed models and rate limits."""

import hashlib
from pathlib import Path

import pytest
from finetune_api.access import KeyPolicy
from finetune_serving.gateway.access import Access, read_keys
from finetune_serving.gateway.errors import RequestError


def build_access(*policies: KeyPolicy) -> Access:
    keys = {name: hashlib.sha256(f"value of {name}".encode()).digest() for name in ("shop", "bank")}
    access = Access(keys)
    access.set_policies(policies)
    return access


def test_a_key_is_identified_by_its_value() -> None:
    assert build_access().identify("Bearer value of shop") == "shop"
    assert build_access().identify("bearer  value of bank ") == "bank"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Bearer value", "Basic value of shop", "value of shop"])
def test_a_request_without_a_known_key_is_refused(header: str) -> None:
    with pytest.raises(RequestError, match="missing or invalid API key") as error:
        build_access().identify(header)
    assert (error.value.status, error.value.code) == (401, "invalid_api_key")


def test_a_key_is_required_only_if_the_server_has_keys() -> None:
    assert Access().identify("") == ""
    with pytest.raises(RequestError):
        Access(keys={}).identify("Bearer x")


def test_a_key_has_access_to_its_models_only() -> None:
    access = build_access(KeyPolicy(name="shop", models=["bot"]))
    access.admit("shop", "bot", 0)
    access.admit("bank", "other", 0)
    with pytest.raises(RequestError, match="no access to the model 'other'") as error:
        access.admit("shop", "other", 0)
    assert error.value.status == 403
    assert access.filter_models("shop", ["base", "bot"]) == ["bot"]
    assert access.filter_models("bank", ["base", "bot"]) == ["base", "bot"]


def test_a_key_over_its_rate_limit_gets_429_with_retry_after() -> None:
    access = build_access(KeyPolicy(name="shop", requests_per_minute=6))
    for _ in range(6):
        access.admit("shop", "bot", 0)
    with pytest.raises(RequestError, match="6 requests per minute: try again in 10 s") as error:
        access.admit("shop", "bot", 0)
    assert (error.value.status, error.value.retry_after) == (429, 10)
    access.admit("shop", "bot", 10)
    with pytest.raises(RequestError):
        access.admit("shop", "bot", 10)


def test_keys_are_read_as_the_kubelet_mounts_them(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "shop").write_text("value of shop\n")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "shop").symlink_to("..data/shop")
    assert Access(read_keys(tmp_path)).identify("Bearer value of shop") == "shop"
