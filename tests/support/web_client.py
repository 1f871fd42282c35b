"""A client of `labelstore view` that sends what it is told to."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from labelstore.cli.web.site import Site


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return self.json["error"]["message"]


@dataclass(frozen=True)
class Client:
    """Asks a server; ``headers`` go with everything."""

    url: str
    site: Site
    headers: dict[str, str]

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """Send a request line as it is, whatever is in it."""
        with closing(http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)) as connection:
            connection.putrequest(method, path, skip_host="host" in headers, skip_accept_encoding=True)
            sent = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
            if body is not None and "transfer-encoding" not in sent:
                sent.setdefault("content-length", str(len(body)))
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read())

    def get(self, name: str, **parameters: Any) -> Answer:
        """Ask an endpoint; ``class_`` stands for ``class``."""
        given = {name.rstrip("_"): value for name, value in parameters.items()}
        return self.ask(f"/api/{name}?{urlencode(given, doseq=True)}")

    def post(self, name: str, body: Any, **parameters: Any) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask(f"/api/{name}?{urlencode(parameters)}", "POST", data, content_type="application/json")


def client_of(url: str, site: Site, **headers: str) -> Client:
    assert site.surveyor.finished.wait(60)
    return Client(url, site, headers)
