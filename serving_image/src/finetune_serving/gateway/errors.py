"""Errors in the format of OpenAI's API: the gateway's own, and vLLM's rewritten. No I/O."""

import json

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""OpenAI's type of an error by its HTTP status; all other ones below 500 are invalid_request_error."""
_NON_FINITE = "Out of range float values are not JSON compliant"
_TOO_LONG = ("maximum context length", "exceeds the max_model_len")


class RequestError(Exception):
    """A request that fails."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        """Store the parts of the response.

        Args:
            status: HTTP status.
            message: says what to do.
            param: the wrong field of the request.
            code: OpenAI's code, which clients compare.
            retry_after: seconds after which a retry may succeed.
        """
        super().__init__(message)
        self.status, self.param, self.code, self.retry_after = status, param, code, retry_after


def build_error(error: RequestError) -> bytes:
    """Return the body of an error response."""
    kind = "server_error" if error.status >= 500 else _TYPES.get(error.status, "invalid_request_error")
    content = {"message": str(error), "type": kind, "param": error.param, "code": error.code}
    return json.dumps({"error": content}).encode()


def read_vllm_error(status: int, body: bytes, model: str) -> RequestError:
    """Return the error in a response of vLLM, whose types and codes are not OpenAI's.

    Args:
        status: the response's HTTP status.
        body: the response's body.
        model: the public model name.
    """
    try:
        content = json.loads(body)["error"]
        message, param = str(content["message"]), content.get("param")
    except (ValueError, TypeError, KeyError, AttributeError):
        message, param = body.decode(errors="replace")[:1000], None
    if status == 400 and _NON_FINITE in message:
        # vLLM blames the client, but the cause is the model.
        return RequestError(500, f"the model {model} returned logprobs that are not finite numbers")
    if any(phrase in message for phrase in _TOO_LONG):
        return RequestError(status, message, code="context_length_exceeded")
    return RequestError(status, message, param=param and str(param).removeprefix("body."))
