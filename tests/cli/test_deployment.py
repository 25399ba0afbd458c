"""``comity deployment new``: what the founders name is what they see and sign. [L-9] [L-10]"""

import json
from pathlib import Path
from typing import Final

import pytest

from comity_client.ceremonies import new_root
from comity_client.cli import run
from comity_client.cli.exits import Exit
from comity_client.pending import Ceremony
from comity_protocol.genesis import Genesis, parse_genesis
from comity_protocol.keys import AnchorKey, FastKey, FullKey
from comity_protocol.policy import Policy
from comity_protocol.quorum import Quorum
from comity_protocol.signed_note import KeyType, VerifierKey
from support.notes import LOG, witness_key

WITNESSES: Final = tuple(witness_key(number) for number in range(1, 6))
ANCHORS: Final = tuple(
    VerifierKey(key.name, KeyType.MLDSA44, AnchorKey(key.public_key).public) for key in WITNESSES
)


def nested(keys: tuple[VerifierKey, ...]) -> Quorum:
    return Quorum(2, (Quorum(2, keys[:3], "States"), Quorum(1, keys[3:], "neutral")), "both")


class Founder:
    """A folder with a root and the relay's keys, and the command in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.relay = FastKey.generate().public
        keys = {"origin": LOG.name, "vkey": LOG.serialize(), "relay": self.relay.hex()}
        self.write("relay-keys.json", json.dumps(keys))
        root = new_root("XA", 1, [FullKey.generate().public])
        (folder / "XA.root").write_bytes(root.serialize())

    def write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    def new(self, *options: str) -> int:
        fixed = [
            "--root",
            f"{self.folder}/XA.root",
            "--relay-keys",
            f"{self.folder}/relay-keys.json",
        ]
        arguments = ["deployment", "new", f"{self.folder}/genesis", *fixed, *options]
        return run(arguments, lambda: 1_790_000_000)

    @property
    def genesis(self) -> Genesis:
        ceremony = Ceremony.parse((self.folder / "genesis").read_bytes())
        return parse_genesis(ceremony.items[0].payload)


@pytest.fixture
def founder(tmp_path: Path) -> Founder:
    return Founder(tmp_path)


def witness_file(founder: Founder, number: int, **more: str) -> str:
    document = {"verifier_key": WITNESSES[number - 1].serialize(), **more}
    return founder.write(f"w{number}.json", json.dumps(document))


def test_witnesses_are_named_by_verifier_key_or_by_file(founder: Founder) -> None:
    """[L-9]"""
    file = witness_file(founder, 2, url="https://w2.example")
    keys = ["--witness", WITNESSES[0].serialize(), "--witness", file]

    assert founder.new(*keys, "--quorum", "2") == Exit.OK
    assert founder.genesis.policy == Policy(
        LOG, Quorum(2, WITNESSES[:2]), {WITNESSES[1].name: "https://w2.example"}
    )
    assert founder.genesis.anchors is None
    assert founder.genesis.relay_key == founder.relay


def test_anchors_come_with_the_files_of_witnesses_that_all_have_a_key_for_them(
    founder: Founder, capsys: pytest.CaptureFixture[str]
) -> None:
    """[L-10]"""
    files = [witness_file(founder, n, anchor_key=ANCHORS[n - 1].serialize()) for n in (1, 2)]
    options = [word for file in files for word in ("--witness", file)]

    assert founder.new(*options, "--quorum", "1") == Exit.OK
    assert founder.genesis.anchors == Policy(LOG, Quorum(1, ANCHORS[:2]))
    said = capsys.readouterr().out
    assert "  quorum       1 of 2 witnesses: witness.example/w1, witness.example/w2\n" in said
    assert "  anchors      the same quorum signs one checkpoint a day with ML-DSA-44 too\n" in said
    assert said.count("  anchor key   witness.example/w") == 2


def test_a_policy_with_groups_is_shown_in_plain_words(
    founder: Founder, capsys: pytest.CaptureFixture[str]
) -> None:
    """[L-9]"""
    policy = Policy(LOG, nested(WITNESSES), {WITNESSES[4].name: "https://w5.example"})
    file = founder.write("policy", policy.serialize())
    anchors = founder.write("anchors", Policy(LOG, nested(ANCHORS)).serialize())

    assert founder.new("--policy", file, "--anchors", anchors) == Exit.OK
    assert founder.genesis.policy.serialize() == policy.serialize()
    assert founder.genesis.anchors is not None
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith(("  quorum", "  group"))] == [
        "  quorum       2 of 2 groups: States, neutral",
        "  group        neutral counts with 1 of 2 witnesses: witness.example/w4,"
        " witness.example/w5",
        "  group        States counts with 2 of 3 witnesses: witness.example/w1,"
        " witness.example/w2, witness.example/w3",
    ]
    assert f"  witness      witness.example/w5, key {WITNESSES[4].public_key.hex()}" in " ".join(
        line.partition(", at ")[0] for line in said
    )
    assert any(line.endswith(", at https://w5.example") for line in said)


def test_without_anchors_the_founders_are_told(
    founder: Founder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert founder.new("--witness", WITNESSES[0].serialize(), "--quorum", "1") == Exit.OK
    assert "anchors      none: proofs last as long as Ed25519 does" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name the witnesses with --witness and --quorum, or a file with --policy"),
        (["--quorum", "1"], "name the witnesses with --witness and --quorum"),
        (["--witness", WITNESSES[0].serialize()], "name the witnesses with --witness and"),
        (["--policy", "policy", "--quorum", "1"], "name the witnesses with --witness and --quorum"),
        (["--anchors", "policy"], "name the witnesses with --witness and --quorum"),
        (["--policy", "of-another-log"], "is a policy for another log than"),
        (["--policy", "commented"], "policy has a line that is unknown or there twice"),
        (["--policy", "policy", "--anchors", "policy"], "anchors have Ed25519 keys"),
        (["--policy", "policy", "--anchors", "weaker"], "anchors are of another log, or other"),
        (["--policy", "latin"], "is not UTF-8, expected a tlog-policy"),
        (["--witness", "other.json", "--quorum", "1"], "is of type 1, expected 4"),
        (["--witness", "list.json", "--quorum", "1"], "witness's file is not an object of JSON"),
        (["--witness", "text.json", "--quorum", "1"], "witness's file is not JSON"),
        (["--witness", "empty.json", "--quorum", "1"], "witness's file has no verifier key"),
        (["--witness", WITNESSES[0].serialize(), "--quorum", "2"], "quorum is 2 of 1"),
        (
            ["--witness", *([WITNESSES[0].serialize(), "--witness"] * 2)[:-1], "--quorum", "1"],
            "one witness is twice in the quorum",
        ),
    ],
)
def test_what_cannot_found_a_deployment_is_refused(
    founder: Founder,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """[L-9] [L-10]"""
    monkeypatch.chdir(founder.folder)
    policy = Policy(LOG, nested(WITNESSES))
    other = VerifierKey("other.example/log", LOG.type, LOG.public_key)
    founder.write("policy", policy.serialize())
    founder.write("of-another-log", Policy(other, nested(WITNESSES)).serialize())
    founder.write("commented", f"# ours\n{policy.serialize()}")
    founder.write("weaker", Policy(LOG, Quorum(1, ANCHORS)).serialize())
    (founder.folder / "latin").write_bytes(b"log \xe9\n")
    founder.write("other.json", json.dumps({"verifier_key": LOG.serialize()}))
    founder.write("list.json", "[]")
    founder.write("text.json", "w1")
    founder.write("empty.json", "{}")

    assert founder.new(*options) != Exit.OK
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (founder.folder / "genesis").exists()
