"""`/api/openapi.json`: the API described, out of the endpoints' own declarations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labelstore.cli.web.endpoints import JSON, Endpoint
from labelstore.cli.web.schemas import INTEGER, STRING, an_object
from labelstore.version import __version__

_REASONS = {
    304: "What the client has is still so.",
    400: "The body is no JSON.",
    401: "A token is needed.",
    408: "The body did not come in time.",
    404: "There is no such row, or nothing to show of it.",
    409: "The row holds no label map: it is pending, or failed.",
    413: "More than is answered at once.",
    421: "Asked under a name that is not this server's.",
    422: "A parameter or the body is not as described.",
    429: "Too many requests; wait as long as `retry-after` says.",
}
_ALWAYS = (401, 408, 413, 421, 422, 429)
_ERROR = an_object({"error": an_object({"status": INTEGER, "kind": STRING, "message": STRING})})


def describe(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Return the OpenAPI description of endpoints."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "labelstore",
            "version": __version__,
            "description": "Soft labels and label maps of one store, over HTTP.",
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "address": {"type": "apiKey", "in": "query", "name": "token"},
            },
        },
        "security": [{"token": []}, {"address": []}],
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    found: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": f"{endpoint.method.lower()}_{endpoint.path.rsplit('/', 1)[-1].replace('.', '_')}",
        "parameters": [parameter.describe() for parameter in endpoint.parameters],
        "responses": {"200": _answer(endpoint)},
    }
    if endpoint.body is not None:
        found["requestBody"] = {"required": True, "content": {JSON: {"schema": dict(endpoint.body)}}}
    for status in sorted({*endpoint.statuses, *_ALWAYS}):
        content = {} if status == 304 else {"content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}
        found["responses"][str(status)] = {"description": _REASONS[status], **content}
    return found


def _answer(endpoint: Endpoint) -> dict[str, Any]:
    if isinstance(endpoint.answer, str):
        content: dict[str, Any] = {endpoint.answer: {}}
    else:
        content = {JSON: {"schema": dict(endpoint.answer)}}
    return {"description": endpoint.summary, "content": content | {other: {} for other in endpoint.others}}
