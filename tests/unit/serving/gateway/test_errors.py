"""Errors in OpenAI's format."""

import json

import pytest
from finetune_serving.gateway.errors import RequestError, build_error, read_vllm_error


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_an_error_has_the_four_fields_of_openai(status: int, kind: str) -> None:
    error = RequestError(status, "wrong", param="model", code="model_not_found")
    assert json.loads(build_error(error)) == {
        "error": {"message": "wrong", "type": kind, "param": "model", "code": "model_not_found"}
    }


def build_vllm_error(message: str, **fields: object) -> bytes:
    return json.dumps({"error": {"message": message, "type": "BadRequestError", "code": 400} | fields}).encode()


def test_an_error_of_vllm_gets_openais_fields() -> None:
    error = read_vllm_error(400, build_vllm_error("wrong", param="body.messages"), "bot")
    assert (error.status, str(error), error.param, error.code) == (400, "wrong", "messages", None)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 1024 tokens. However, your prompt contains 2000 input tokens",
        "The engine prompt length 1024 exceeds the max_model_len 1024. Please reduce prompt.",
    ],
)
def test_a_prompt_that_is_too_long_has_the_code_that_clients_compare(message: str) -> None:
    assert read_vllm_error(400, build_vllm_error(message), "bot").code == "context_length_exceeded"


def test_logprobs_that_are_not_finite_are_a_server_error() -> None:
    error = read_vllm_error(400, build_vllm_error("Out of range float values are not JSON compliant: nan"), "bot")
    assert (error.status, str(error)) == (500, "the model bot returned logprobs that are not finite numbers")


@pytest.mark.parametrize("body", [b"Internal Server Error", b'{"error": 1}', b"[]", b'{"error": {}}'])
def test_a_body_in_another_format_is_the_message(body: bytes) -> None:
    error = read_vllm_error(500, body, "bot")
    assert (error.status, str(error), error.param, error.code) == (500, body.decode(), None, None)
