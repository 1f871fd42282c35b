"""The API is as its OpenAPI description says: looked at by schemathesis, with requests that fit it and that do not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from labelstore.cli.web.guard import Rules
from labelstore.cli.web.serve import serving
from labelstore.cli.web.site import Site

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)


def test_the_description_names_every_endpoint_and_its_parameters(viewed):
    said = viewed.get("openapi.json").json
    assert said["openapi"].startswith("3.1")
    assert set(said["paths"]) == {
        f"/api/{name}"
        for name in (
            "healthz",
            "info",
            "ids",
            "classes",
            "maps",
            "pool",
            "crops",
            "photo",
            "cells",
            "survey",
            "failures",
            "metrics",
        )
    }
    assert set(said["paths"]["/api/maps"]) == {"get", "post"}
    limit = next(each for each in said["paths"]["/api/ids"]["get"]["parameters"] if each["name"] == "limit")
    assert limit["schema"] == {"type": "integer", "minimum": 1, "maximum": 500, "default": 100}
    names = [operation["operationId"] for path in said["paths"].values() for operation in path.values()]
    assert len(set(names)) == len(names)


def test_schemathesis_finds_no_difference(picture_store, tmp_path):
    site = Site(str(picture_store))
    with serving(site, Rules(rate=1e6, burst=1e6)) as url:
        assert site.surveyor.finished.wait(60)
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/api/openapi.json", "--max-examples", "40"]
        command += ["--checks", ",".join(CHECKS), "--seed", "1", "--no-color", "--phases", "examples,coverage,fuzzing"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.parametrize("path", ["/api/nothing", "/api/", "/api", "/image/", "/assets/", "/assets/index.html", "/favicon.ico"])
def test_what_is_not_there_is_not_found(viewed, path):
    answer = viewed.ask(path)
    assert answer.status == 404
    assert json.loads(answer.body)["error"]["status"] == 404
