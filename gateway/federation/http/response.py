"""GraphQL responses as they come from the wire."""

from typing import Any

import orjson

from gateway.federation.http.broken import INVALID, Broken


def decoded(body: bytes | bytearray | str, status: int = 200) -> dict[str, Any]:
    """A GraphQL response, whatever its status. `Broken` if it is none."""
    try:
        response = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _none(status, "its answer is not JSON") from None
    if type(response) is not dict:
        raise _none(status, "its answer is no JSON object")
    if "data" not in response and "errors" not in response:
        raise _none(status, "its answer is no GraphQL response")
    return response


def _none(status: int, message: str) -> Broken:
    return Broken(INVALID, message if status == 200 else f"{message} (HTTP status {status})")
