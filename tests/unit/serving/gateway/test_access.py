"""API keys: who is who, and how often each may ask."""

import hashlib
from pathlib import Path

import pytest
from finetune_api.access import KeyPolicy
from finetune_serving.gateway.access import Access, read_keys
from finetune_serving.gateway.openai_messages import RequestError


def access(*policies: KeyPolicy) -> Access:
    keys = {name: hashlib.sha256(f"value of {name}".encode()).digest() for name in ("shop", "bank")}
    found = Access(keys)
    found.limit(policies)
    return found


def test_a_key_is_known_by_its_value() -> None:
    assert access().identify("Bearer value of shop") == "shop"
    assert access().identify("bearer  value of bank ") == "bank"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Bearer value", "Basic value of shop", "value of shop"])
def test_a_request_without_a_known_key_is_refused(header: str) -> None:
    with pytest.raises(RequestError, match="give an API key") as error:
        access().identify(header)
    assert (error.value.status, error.value.kind) == (401, "authentication_error")


def test_only_a_server_that_was_given_keys_asks_for_one() -> None:
    assert Access().identify("") == ""
    with pytest.raises(RequestError):
        Access(keys={}).identify("Bearer x")


def test_a_key_may_ask_for_its_models_only() -> None:
    limited = access(KeyPolicy(name="shop", models=["bot"]))
    limited.admit("shop", "bot", 0)
    limited.admit("bank", "other", 0)
    with pytest.raises(RequestError, match="may not ask for 'other'") as error:
        limited.admit("shop", "other", 0)
    assert error.value.status == 403
    assert limited.allowed("shop", ["base", "bot"]) == ["bot"]
    assert limited.allowed("bank", ["base", "bot"]) == ["base", "bot"]


def test_a_key_that_asks_too_often_is_told_when_to_come_again() -> None:
    limited = access(KeyPolicy(name="shop", requests_per_minute=6))
    for _ in range(6):
        limited.admit("shop", "bot", 0)
    with pytest.raises(RequestError, match="6 times in a minute") as error:
        limited.admit("shop", "bot", 0)
    assert (error.value.status, error.value.retry_after) == (429, 10)
    limited.admit("shop", "bot", 10)
    with pytest.raises(RequestError):
        limited.admit("shop", "bot", 10)


def test_keys_are_read_as_the_kubelet_mounts_them(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "shop").write_text("value of shop\n")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "shop").symlink_to("..data/shop")
    assert Access(read_keys(tmp_path)).identify("Bearer value of shop") == "shop"
