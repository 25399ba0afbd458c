"""The examples of deploy/ fit the programs: command lines, settings, metrics and times.

Containers, nginx and Prometheus themselves are not run here; deploy/README.md says so.
"""

import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any, Final

import click
import pytest
import yaml  # type: ignore[import-untyped]  # the package brings no types

from comity_client import witness_program
from comity_server import commands
from comity_server.handlers.mailbox import WAIT_SECONDS_MAX
from comity_server.handlers.statements import SIGNED_STATEMENT_BYTES_MAX
from comity_server.metrics import Metrics
from comity_server.settings import PREFIX, Settings, load
from support.documents import ROOT, document

DEPLOY: Final = ROOT / "deploy"


def read(name: str) -> str:
    return (DEPLOY / name).read_text("utf-8")


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(read("compose.yaml"))
    return loaded


def unit(name: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in read(name).splitlines() if "=" in line[1:])


def parse_relay(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """Parse a command line of comity-relay as the program does, without running it."""
    name, *rest = arguments
    found = copy.deepcopy(commands.command.commands[name])
    for option in found.params:
        if isinstance(option.type, click.Path):
            option.type.exists = False
    return name, found.make_context(name, rest).params


def words_of_docker(instruction: str) -> list[str]:
    (found,) = re.findall(rf"^{instruction} (\[.*\])$", read("Dockerfile"), re.MULTILINE)
    words: list[str] = json.loads(found)
    return words


def metric_names() -> set[str]:
    names = set()
    for family in Metrics()._registry.collect():
        ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        names |= {family.name + end for end in ends.get(family.type, [""])}
    return names


def test_the_image_serves_behind_a_proxy_as_a_user_without_rights() -> None:
    name, params = parse_relay(words_of_docker("CMD"))

    given = {key: value for key, value in params.items() if key != "file"}
    settings = load(environment={}, arguments=given)
    assert words_of_docker("ENTRYPOINT") == ["comity-relay"]
    assert (name, settings.behind_proxy, settings.port) == ("serve", True, 8440)
    assert "USER 10001:10001" in read("Dockerfile")


def test_compose_gives_the_relay_settings_that_it_has_and_time_to_drain() -> None:
    relay = compose()["services"]["relay"]

    known = {PREFIX + name.upper() for name in Settings.__dataclass_fields__}
    assert relay["environment"].keys() <= known
    assert relay["read_only"] is True
    assert float(relay["stop_grace_period"].rstrip("s")) > Settings().drain_seconds


def test_the_signer_runs_apart_and_can_be_started() -> None:
    program, *arguments = shlex.split(unit("comity-signer.service")["ExecStart"])
    service = compose()["services"]["signer"]

    for words in (arguments, service["command"]):
        name, params = parse_relay(words)
        assert (name, params["path"].name) == ("signer", "socket")
    assert Path(program).name == "comity-relay"
    assert unit("comity-signer.service")["User"] != unit("comity-relay.service")["User"]
    assert service["network_mode"] == "none"


@pytest.mark.parametrize("file", ["compose.yaml", "../docs/OPERATIONS.md"])
def test_every_command_of_the_relay_that_is_shown_can_be_given(file: str) -> None:
    commands_of_relay = r"(?:comity-relay|[^-]relay) ((?:keys|init|serve|signer) --[^`>\n]*)"
    shown = re.findall(commands_of_relay, read(file))

    assert len(shown) >= 2
    for line in shown:
        parse_relay(shlex.split(line))


def test_the_settings_file_loads() -> None:
    settings = load(file=DEPLOY / "relay.toml", environment={})

    assert len(settings.witnesses) == 3
    assert settings.signer_path.parent != settings.data


def test_the_unit_of_the_relay_can_be_started_and_has_time_to_drain() -> None:
    fields = unit("comity-relay.service")
    program, *arguments = shlex.split(fields["ExecStart"])

    name, params = parse_relay(arguments)
    assert Path(program).name == "comity-relay"
    assert (name, params["file"]) == ("serve", Path("/etc/comity/relay.toml"))
    assert float(fields["TimeoutStopSec"]) > Settings().drain_seconds


def test_the_unit_of_the_witness_uses_options_that_the_witness_has(
    capsys: pytest.CaptureFixture[str],
) -> None:
    program, noun, *arguments = shlex.split(unit("comity-witness.service")["ExecStart"])
    with pytest.raises(SystemExit):
        witness_program.main(["--help"], lambda: 0)

    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert (Path(program).name, noun) == ("comity", "witness")
    assert {word for word in arguments if word.startswith("--")} <= options


@pytest.mark.parametrize("file", ["prometheus-rules.yml", "grafana-board.json"])
def test_alerts_and_board_use_metrics_that_the_relay_has(file: str) -> None:
    used = set(re.findall(r"\bcomity_[a-z_]+", read(file)))

    assert used
    assert sorted(used - metric_names()) == []


def test_the_board_and_the_rules_are_well_formed() -> None:
    board = json.loads(read("grafana-board.json"))
    (group,) = yaml.safe_load(read("prometheus-rules.yml"))["groups"]

    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert all({"alert", "expr", "labels"} <= rule.keys() for rule in group["rules"])


def test_the_proxy_waits_longer_than_the_relay_and_takes_its_largest_body() -> None:
    (read_seconds,) = re.findall(r"proxy_read_timeout (\d+)s;", read("nginx.conf"))
    (megabytes,) = re.findall(r"client_max_body_size (\d+)m;", read("nginx.conf"))

    assert int(read_seconds) > WAIT_SECONDS_MAX
    assert int(megabytes) * 1024 * 1024 > SIGNED_STATEMENT_BYTES_MAX


def test_the_proxy_keeps_no_addresses_and_shows_no_metrics() -> None:
    assert re.findall(r"access_log (.*);", read("nginx.conf")) == ["off"]
    assert "proxy_set_header X-" not in read("nginx.conf")
    assert "location = /metrics { return 404; }" in read("nginx.conf")


def test_what_is_not_run_says_so() -> None:
    for name in ["Dockerfile", "compose.yaml", "nginx.conf", "prometheus-rules.yml", "README.md"]:
        assert re.search("not run by our tests", read(name), re.IGNORECASE), name
    assert "`deploy/nginx.conf`" in document("OPERATIONS.md")
