"""docs/OPERATIONS.md and the other pages agree with the program that they describe."""

import ast
import re
import shlex
from pathlib import Path
from typing import Final

import click
import pytest

import comity_server
from comity_client.cli import comity
from comity_server.settings import Settings, load
from support.documents import ROOT, document, rows_under

PAGES: Final = sorted((ROOT / "docs").rglob("*.md"))
OTHERS: Final = [ROOT / "README.md", ROOT / "deploy" / "README.md", ROOT / "CHANGELOG.md"]


def settings_on_the_page() -> dict[str, str]:
    return {
        name: "" if default == "empty" else default
        for name, default, _ in rows_under(document("OPERATIONS.md"), "| setting |")
    }


def test_the_page_lists_every_setting() -> None:
    assert sorted(settings_on_the_page().keys() ^ Settings.__dataclass_fields__.keys()) == []


def test_the_page_lists_the_default_of_every_setting() -> None:
    environment = {f"COMITY_{name.upper()}": text for name, text in settings_on_the_page().items()}

    assert load(environment=environment) == Settings()


def test_the_page_explains_every_alarm_of_the_relay() -> None:
    listed = [event for event, _, _ in rows_under(document("OPERATIONS.md"), "| event |")]
    alarms = {
        ast.literal_eval(node.args[0])
        for path in Path(comity_server.__path__[0]).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "observe.alarm"
    }

    assert sorted(listed) == sorted(alarms)


def test_the_page_explains_every_alert() -> None:
    listed = [alert for alert, _, _ in rows_under(document("OPERATIONS.md"), "| alert |")]
    rules = (ROOT / "deploy" / "prometheus-rules.yml").read_text("utf-8")

    assert sorted(listed) == sorted(re.findall(r"- alert: (\w+)", rules))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_cites_only_rules_that_the_law_has(page: Path) -> None:
    law = set(re.findall(r"\[([A-Z]-[0-9]+)\]", document("PROTOCOL.md")))
    cited = set(re.findall(r"(?<![\w-])([A-Z]-[0-9]+)(?![\w-])", page.read_text("utf-8")))

    assert sorted(cited - law) == []


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_only_files_that_are_there(page: Path) -> None:
    text = page.read_text("utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    named = re.findall(r"`((?:docs|deploy|tests|protocol|client|server)/[\w./-]+\.\w+)`", text)

    assert [name for name in links if not (page.parent / name).exists()] == []
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_command_of_comity_that_the_page_shows_is_there() -> None:
    lines = re.findall(
        r"(?:`|^ {4,})comity ([a-z][^`\n]*)", document("OPERATIONS.md"), re.MULTILINE
    )

    assert len(lines) > 10
    for line in lines:
        words = shlex.split(line)
        if words[0] == "witness":  # It has its own options; tests/test_deploy.py compares them.
            continue
        command: click.Command = comity
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            name = words.pop(0)
            found = command.get_command(click.Context(command), name)
            assert found is not None, f"comity {line}"
            command = found
        options = {text for one in command.params for text in one.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= options, f"comity {line}"


def test_the_glossary_has_one_line_for_each_word() -> None:
    words = [
        word
        for first, *_ in rows_under(document("GLOSSARY.md"), "| word |")
        for word in first.split(", ")
    ]

    assert sorted(words) == sorted(set(words))
