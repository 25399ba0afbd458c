"""``comity verify``: everything that holds an envelope up, checked anew and named."""

from typing import TYPE_CHECKING

import click

from comity_client.cli.shell import Shell, Verb

if TYPE_CHECKING:
    from comity_client.desk import Desk
    from comity_client.envelopes import Opened

_RECEIVED = "its proof was checked when it was received; none is kept to check it again offline"


@click.command(cls=Verb)
@click.argument("envelope")
@click.pass_obj
def verify(shell: Shell, envelope: str) -> int:
    """Check ENVELOPE anew, by its id or its first digits, and print what was checked.

    Signatures, content, witnesses and receipts are checked from what is stored. The proof of its
    place in the log is computed anew from the relay's tiles and kept as a C2SP tlog-proof in the
    profile; with --offline the kept one is checked.
    """
    from comity_client.cli.acts import find_envelope
    from comity_client.cli.exits import Exit
    from comity_client.cli.online import with_desk
    from comity_protocol.errors import ComityError, OpenError, VerificationError

    id_ = find_envelope(shell, envelope)
    failure: ComityError | None = None

    async def do(desk: "Desk") -> list[tuple[str, str]]:
        nonlocal failure
        done: list[tuple[str, str]] = []
        try:
            opened = desk.read(id_)
            done += _content(desk, opened)
            done.append(await _place(shell, desk, opened))
            done += _witnesses(desk)
            done += _receipts(desk, opened)
        except (VerificationError, OpenError) as error:
            failure = error
        return done

    done = with_desk(shell, do)
    document: dict[str, object] = {
        "envelope": id_.hex(),
        "verified": failure is None,
        "checks": [{"name": name, "text": text} for name, text in done],
        "failure": str(failure) if failure else None,
    }
    lines = [f"ok    {name:<9} {text}" for name, text in done]
    if failure is not None:
        lines += [f"FAIL  {failure}", f"      -> {failure.remedy}"]
    else:
        lines.append("verified")
    shell.give("verification", document, lines)
    return Exit.OK if failure is None else Exit.UNVERIFIED


def _content(desk: "Desk", opened: "Opened") -> list[tuple[str, str]]:
    from comity_client.cli.known import name_of

    core = opened.core
    sender = name_of(core.sender, desk.profile, dict(desk.directory.desks))
    index = opened.leaf_index
    when = "now" if index is None else f"at leaf {index}"
    done = [
        ("sender", f"signed by device {core.device.hex()[:8]}, active in {sender} {when}"),
        ("content", "body, audit part and key are those that the core names, and they open"),
    ]
    if opened.act is not None:
        formal = "composite signature holds" if opened.is_signed else "informal, not signed"
        done.append(
            ("act", f"{opened.record.event.value} says what its procedure demands; {formal}")
        )
        done.append(("auditors", "were told the same as the desks"))
    return done


async def _place(shell: Shell, desk: "Desk", opened: "Opened") -> tuple[str, str]:
    from comity_client.cli.online import moment
    from comity_client.proofs import (
        core_of,
        fetch_proof,
        keep_proof,
        proof_path,
        read_proof,
        verify_proof,
    )

    index, envelope = opened.leaf_index, opened.core.id
    if index is None:
        return "log", "not in the log yet"
    path = proof_path(shell.folder, envelope)
    proof = read_proof(path) if shell.is_offline else None
    if shell.is_offline and proof is None:
        return "log", f"leaf {index}; {_RECEIVED}"
    if proof is None:
        with shell.step("proving its place in the log"):
            await desk.sync()
            proof = await fetch_proof(desk, envelope)
    under = verify_proof(proof, core_of(desk, envelope), desk.directory.genesis)
    if not shell.is_offline:
        keep_proof(path, proof)
    return (
        "log",
        f"leaf {index} of {under.checkpoint.size}, inclusion proof leads to the root that"
        f" {len(under.cosignatures)} witnesses cosigned, {moment(under.sealed_time)}",
    )


def _witnesses(desk: "Desk") -> list[tuple[str, str]]:
    from comity_client.cli.online import moment
    from comity_client.words import needed
    from comity_protocol.checkpoint import verify_quorum

    genesis = desk.directory.genesis
    found = verify_quorum(desk.newest.note, genesis.log, genesis.quorum)
    names = ", ".join(sorted(one.witness for one in found.cosignatures))
    return [
        ("genesis", f"deployment {genesis.deployment.hex()}, as pinned at enrolment"),
        (
            "witnesses",
            f"{len(found.cosignatures)} cosigned the checkpoint, {needed(genesis.quorum)} needed:"
            f" {names}; {moment(found.sealed_time)}",
        ),
    ]


def _receipts(desk: "Desk", opened: "Opened") -> list[tuple[str, str]]:
    from comity_client.cli.known import name_of
    from comity_client.glance import receipts
    from comity_protocol.receipts import Signed, check_confirms, verify_receipt

    done = []
    for kept in receipts(desk.state, opened.core.id):
        signed = Signed(kept.payload, kept.signature)
        receipt = verify_receipt(signed, desk.directory, index=kept.leaf_index)
        check_confirms(receipt, opened.core)
        name = name_of(kept.desk, desk.profile, dict(desk.directory.desks))
        done.append(
            (
                "receipt",
                f"{name} signed that it holds it and can open it"
                f" (device {receipt.device.hex()[:8]}, leaf {kept.leaf_index})",
            )
        )
    return done
