"""openapi.yaml says what the relay does: routes and problems, both ways."""

from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # the package brings no types
from openapi_spec_validator import validate

from comity_protocol.wire import PROBLEMS
from comity_server.app import make_app
from comity_server.handlers.health import openapi
from support.relay import Stand


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(openapi())
    return loaded


def _operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }


def _codes(document: dict[str, Any], response: dict[str, Any]) -> set[str]:
    """The problem codes that a response of the document may have."""
    name = response.get("$ref", "").rpartition("/")[2]
    content = document["components"]["responses"].get(name, {}).get("content", {})
    schema = content.get("application/problem+json", {}).get("schema", {"allOf": []})
    return {
        code
        for part in schema["allOf"]
        for code in part.get("properties", {}).get("code", {}).get("enum", [])
    }


def test_the_document_is_openapi(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    validate(document)


async def test_every_route_is_described_and_every_description_is_a_route(
    stand: Stand, document: dict[str, Any]
) -> None:
    routes = {
        (route.method, route.resource.canonical)
        for route in make_app(stand.relay.context).router.routes()
        if route.resource is not None
    }

    assert set(_operations(document)) == routes


def test_every_problem_of_the_protocol_is_described_under_its_status(
    document: dict[str, Any],
) -> None:
    """[R-12]"""
    described = {
        (code, int(status))
        for operation in _operations(document).values()
        for status, response in operation["responses"].items()
        for code in _codes(document, response)
    }

    assert described == {(code, problem.status) for code, problem in PROBLEMS.items()}


def test_every_operation_names_what_can_go_wrong_anywhere(document: dict[str, Any]) -> None:
    """[R-12]"""
    missing = [
        key
        for key, operation in _operations(document).items()
        if not {"405", "500"} <= operation["responses"].keys()
    ]

    assert missing == []


def test_every_operation_that_needs_a_token_names_its_refusals(document: dict[str, Any]) -> None:
    operations = _operations(document).items()
    needs = {key: "security" not in operation for key, operation in operations}
    names = {key: {"401", "403"} <= operation["responses"].keys() for key, operation in operations}

    assert needs == names


async def test_the_relay_serves_the_document(stand: Stand, document: dict[str, Any]) -> None:
    answer = await stand.relay.ask("GET", "/openapi.yaml")

    assert answer.headers["Content-Type"].startswith("application/yaml")
    assert yaml.safe_load(answer.body) == document


async def test_every_described_path_that_needs_a_token_asks_for_one(
    stand: Stand, document: dict[str, Any]
) -> None:
    for (method, path), operation in _operations(document).items():
        answer = await stand.relay.ask(method, path.replace("{envelope}", "00" * 16))

        if "security" not in operation:
            assert (answer.status, answer.code) == (401, "unauthenticated"), path
        else:
            assert answer.status != 401, path
