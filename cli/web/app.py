"""What answers which address."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import files

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from labelstore.cli.web.browsing import CLASSES, IDS
from labelstore.cli.web.counting import Counters, Counting, metrics_endpoint
from labelstore.cli.web.endpoints import Call, Endpoint, as_json, refusal, tagged
from labelstore.cli.web.facts import FAILURES, HEALTHZ, INFO, SURVEY
from labelstore.cli.web.guard import Guard, Rules
from labelstore.cli.web.labels import CROPS, MAP, MAPS, POOL
from labelstore.cli.web.openapi import describe
from labelstore.cli.web.parameters import RequestError
from labelstore.cli.web.pictures import CELLS, PHOTO
from labelstore.cli.web.site import Site

ENDPOINTS = (HEALTHZ, INFO, IDS, CLASSES, MAP, MAPS, POOL, CROPS, PHOTO, CELLS, SURVEY, FAILURES)
PAGES = ("/", "/image", "/store")
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def make_app(site: Site, rules: Rules) -> Starlette:
    """Return the application of a store."""
    counters = Counters(site)
    endpoints = [*ENDPOINTS, metrics_endpoint(counters)]
    description = describe(endpoints)
    endpoints.append(Endpoint("/api/openapi.json", "This description.", lambda _: as_json(description)))
    assets = _assets()

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        site.surveyor.start()
        try:
            yield
        finally:
            site.surveyor.stop()

    routes = [*_api_routes(endpoints), *(Route(path, _asset_route(*asset)) for path, asset in assets.items())]
    paths = frozenset([*(endpoint.path for endpoint in endpoints), *assets])
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Counting, counters=counters, paths=paths), Middleware(Guard, rules=rules)],
        exception_handlers={HTTPException: _not_answered},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.site = site
    return app


def _api_routes(endpoints: list[Endpoint]) -> list[Route]:
    """One route an address: what another method is answered depends on all that the address takes."""
    methods: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints:
        methods.setdefault(endpoint.path, {})[endpoint.method] = endpoint

    def route(path: str, by_method: dict[str, Endpoint]) -> Route:
        async def handle(request: Request) -> Response:
            method = "GET" if request.method == "HEAD" else request.method
            return await by_method[method].handle(request)

        return Route(path, handle, methods=list(by_method))

    return [route(path, by_method) for path, by_method in methods.items()]


def _assets() -> dict[str, tuple[bytes, str]]:
    """The files of the page, by address: read once, so that no path is ever made of a request."""
    folder = files("labelstore.cli.web").joinpath("assets")
    found: dict[str, tuple[bytes, str]] = {}
    for file in folder.iterdir():
        kind = _TYPES.get("." + file.name.rpartition(".")[2])
        if kind:
            found[f"/assets/{file.name}"] = file.read_bytes(), kind
    page = found.pop("/assets/index.html")
    return found | dict.fromkeys(PAGES, page)


def _asset_route(data: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    tag = hashlib.sha256(data).hexdigest()

    async def show(request: Request) -> Response:
        call = Call(request.app.state.site, {}, None, request.headers.get("if-none-match", ""))
        response = tagged(call, tag, lambda: Response(data, media_type=kind))
        response.headers["cache-control"] = "no-cache"
        return response

    return show


async def _not_answered(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(getattr(error, "headers", None) or {})
    answer = refusal(RequestError(status, f"{request.method} {request.url.path[:200]}: {getattr(error, 'detail', '')}"))
    answer.headers.update(headers)
    return answer
