"""docs/PROTOCOL.md and the code say the same: rules, tables and the worked example.

Three sets have to be empty: rules without code, rules without a test, and rules that somebody cites
but the law does not have. Code cites a rule as ``SPEC [...]: ...`` above the check or as a bullet
of its module's list of rules; a test cites it in brackets anywhere.
"""

import importlib
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Final

import yaml  # type: ignore[import-untyped]  # the package brings no types

import comity_client
import comity_protocol
import comity_server
from comity_client.transport import RelayRefusedError
from comity_protocol import codes, exchange, limits
from comity_protocol.acts import Event
from comity_protocol.errors import ComityError
from comity_protocol.profiles import PROFILES
from comity_protocol.statements import Authority
from comity_protocol.wire import PROBLEMS
from support.documents import ROOT, document, rows_under

PACKAGES: Final = (comity_protocol, comity_client, comity_server)

ID: Final = re.compile(r"\[([A-Z]-[0-9]+)\]")
RULE: Final = re.compile(r"^\* ((?:.|\n(?!\*|\n))+?)\s\[([A-Z]-[0-9]+)\]$", re.MULTILINE)
CITING_LINE: Final = re.compile(r"SPEC \[|^\* \[", re.MULTILINE)


@cache
def law() -> str:
    return document("PROTOCOL.md")


@cache
def rules() -> Counter[str]:
    return Counter(ID.findall(law()))


@cache
def sources() -> tuple[str, ...]:
    """Text of every program file; its tests are somewhere else."""
    folders = (Path(package.__path__[0]) for package in PACKAGES)
    return tuple(path.read_text("utf-8") for folder in folders for path in folder.rglob("*.py"))


@cache
def text_of_tests() -> str:
    paths = (ROOT / "tests").rglob("*.py")
    return "\n".join(path.read_text("utf-8") for path in paths if path != Path(__file__))


def cited_as_rule() -> Iterator[str]:
    for source in sources():
        for line in source.splitlines():
            if CITING_LINE.search(line.strip()):
                yield from ID.findall(line)


def test_every_rule_is_defined_exactly_once() -> None:
    assert {rule: count for rule, count in rules().items() if count > 1} == {}


def test_every_rule_is_one_sentence_with_a_must_that_ends_in_its_id() -> None:
    sentences = {id_: " ".join(text.split()) for text, id_ in RULE.findall(law())}

    assert sentences.keys() == rules().keys()
    assert [i for i, text in sentences.items() if "MUST" not in text or text[-1] != "."] == []


def test_every_rule_has_code() -> None:
    assert sorted(rules().keys() - set(cited_as_rule())) == []


def test_every_rule_has_a_test() -> None:
    assert sorted(rules().keys() - set(ID.findall(text_of_tests()))) == []


def test_nobody_cites_a_rule_that_the_law_does_not_have() -> None:
    cited = set(ID.findall(text_of_tests())).union(*map(ID.findall, sources()))

    assert sorted(cited - rules().keys()) == []


def test_the_law_lists_the_problem_codes_of_the_wire() -> None:
    listed = {code: (int(status), title) for code, status, title in rows_under(law(), "| code | s")}

    assert listed == {code: (one.status, one.title) for code, one in PROBLEMS.items()}


def test_the_law_lists_every_route_and_whether_it_takes_a_token() -> None:
    described = yaml.safe_load(files("comity_server").joinpath("openapi.yaml").read_text("utf-8"))[
        "paths"
    ]
    routes = {
        f"{method.upper()} {path}": operation.get("security") != []
        for path, operations in described.items()
        for method, operation in operations.items()
        if method in {"get", "post"}
    }
    listed = {
        route: needed == "yes"
        for routes_, needed, _ in rows_under(law(), "| method and path |")
        for route in routes_.split(", ")
    }

    assert listed == routes


def test_the_law_lists_the_codes_of_all_errors() -> None:
    modules = list(imported_modules())
    found = {code for code, _ in rows_under(law(), "| code | meaning")}
    # The client has an error of each problem's own code, and those codes are listed as problems.
    known = {
        error.code
        for error in kinds_of(ComityError)
        if not issubclass(error, RelayRefusedError) or error.code not in PROBLEMS
    }

    assert modules
    assert sorted(found ^ known) == []


def test_the_law_lists_every_limit_with_its_value() -> None:
    listed = {
        name: int(value.replace(",", ""))
        for name, value, _ in rows_under(law(), "| name | value | of")
    }

    assert listed == {name: value for name, value in vars(limits).items() if name.isupper()}


def test_the_law_writes_out_the_closed_lists() -> None:
    written = {frozenset(codes_of(text)) for _, text in rows_under(law(), "| list | codes")}

    assert written == {
        frozenset(value)
        for name, value in vars(codes).items()
        if name.isupper() and not name.startswith("_")
    }


def codes_of(text: str) -> list[str]:
    """Read ``A, B, C``, or ``M01 to M40``."""
    if found := re.fullmatch(r"([A-Z])([0-9]{2}) to \1([0-9]{2})", text):
        return [f"{found[1]}{number:02}" for number in range(int(found[2]), int(found[3]) + 1)]
    return text.split(", ")


def test_the_law_writes_out_every_profile() -> None:
    (opening,) = re.findall(r"^OPENING = ((?:.|\n)+?)\.$", law(), re.MULTILINE)
    replies = {
        Event(event): (fields_of(must), fields_of(may))
        for event, must, may in rows_under(law(), "| event | must say")
    }
    rows = list(rows_under(law(), "| profile | key"))

    assert sorted(row[0] for row in rows) == sorted(PROFILES)
    for code, key, opened_by, opens, besides, signed in rows:
        profile = PROFILES[code]
        event, _, must = opens.partition(": ")
        may = fields_of(besides.replace("OPENING", " ".join(opening.split())))
        says = {Event(event): (fields_of(must), may), **replies}
        everybody = {one.value for one in Authority}
        named = {"secretariat"} if opened_by.startswith("any") else everybody - fields_of(opened_by)
        assert profile.kind.name.lower() == key
        assert {one.value for one in profile.authorities} == everybody - named
        assert {one.value for one in profile.signed} == fields_of(signed) - {"none"}
        assert profile.opens is Event(event)
        assert {
            one: (set(profile.must[one]), set(profile.may[one]) - set(profile.must[one]))
            for one in profile.must
        } == {one: (must_, may_ - must_) for one, (must_, may_) in says.items()}


def fields_of(text: str) -> set[str]:
    return set(text.split(", ")) - {""}


def test_the_law_draws_the_table_of_the_exchange() -> None:
    states = {state.value: state for state in exchange.State}
    listed = [
        exchange.Row(
            Event(event),
            exchange.By(by),
            frozenset(states[name] for name in sources_.split(", ") if name != "none"),
            None if target == "unchanged" else states[target],
        )
        for event, by, sources_, target in rows_under(law(), "| event | by | from")
    ]

    assert Counter(listed) == Counter(exchange.TABLE)


def imported_modules() -> Iterator[ModuleType]:
    """Import every module but the programs' entry points, so that every error class is there."""
    for package in PACKAGES:
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                yield importlib.import_module(found.name)


def kinds_of(error: type[ComityError]) -> set[type[ComityError]]:
    return {error}.union(*(kinds_of(kind) for kind in error.__subclasses__()))
