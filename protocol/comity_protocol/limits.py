"""Every bound of the protocol, in one place, each with its unit and its reason.

A name ends in its unit and then its qualifier (``envelope_bytes_max`` becomes
``ENVELOPE_BYTES_MAX``). Nothing here is computed from the world.
"""

from typing import Final

# --- Encoding ---------------------------------------------------------------------------------

# Containers inside containers. The deepest object of the protocol uses 6; a bound keeps a hostile
# object from exhausting the stack of a small machine.
DEPTH_MAX: Final = 8

# --- Keys -------------------------------------------------------------------------------------

# Argon2id passes. 3 is the library's "moderate" figure; fewer would make a stolen laptop cheap to
# search.
STRETCH_OPS_MIN: Final = 3

# More than this would let a planted key file freeze the officer's machine for minutes.
STRETCH_OPS_MAX: Final = 16

# Argon2id memory in bytes. 64 MiB still runs on a 2 GB laptop and fills a graphics card with few
# parallel guesses.
STRETCH_MEMORY_BYTES_MIN: Final = 64 * 1024 * 1024

# A planted key file must not be able to take all memory of the officer's machine.
STRETCH_MEMORY_BYTES_MAX: Final = 1024 * 1024 * 1024

# Parsed public keys kept in memory, for each of the two kinds. A region has about 600 desks, of
# which a process writes to a few at a time; a parsed key takes some tens of kilobytes.
PUBLIC_KEYS_CACHED_MAX: Final = 256

# --- Statements -------------------------------------------------------------------------------

# The largest is a genesis with 16 roots of 9 custodians: 290 kB. Others stay below 8 kB.
STATEMENT_BYTES_MAX: Final = 512 * 1024

# Signatures on one statement: every custodian of every founding root.
SIGNATURES_MAX: Final = 144

# Custodians of one root. Protocol reference: 3 of 5; more than 9 cannot be gathered.
CUSTODIANS_MAX: Final = 9

# Founding roots in one genesis; later ones are admitted one by one.
ROOTS_MAX: Final = 16

# Live devices of one desk. A larger office is several desks.
DEVICES_MAX: Final = 128

# Statements of one desk's chain: two a day for forty years.
CHAIN_STATEMENTS_MAX: Final = 30_000

# Highest position of a statement, and number of an epoch, that an object may name. A chain itself
# ends far below, at CHAIN_STATEMENTS_MAX.
SEQ_MAX: Final = 1 << 32
EPOCH_NUMBER_MAX: Final = 1 << 32

# Number of a receipt or a notice among those of its device to the same readers.
NUMBER_MAX: Final = 1 << 32

# Desks that a policy names as auditors, for each key kind.
AUDITORS_MAX: Final = 4

# A box holds the file seed and the lead seeds that are not yet deleted: 1,136 + 32 + 36 each.
LEAD_SEEDS_MAX: Final = 12
BOX_BYTES_MAX: Final = 1_136 + 32 + 36 * LEAD_SEEDS_MAX

# The previous file seed in a small box is 72 bytes; the bound leaves room for nothing else.
PREVIOUS_BOX_BYTES_MAX: Final = 72

# Longest epoch that a policy may set, in days: a year without rotation is a desk asleep.
EPOCH_DAYS_MAX: Final = 366

# Oldest checkpoint a policy may let senders rely on, in hours (DESIGN: 72 at most).
FRESH_HOURS_MAX: Final = 72

# Longest sealed history that a policy may ask the relay to keep, in days: thirty years.
HISTORY_DAYS_MAX: Final = 10_957

# One line of a name or code, in bytes of UTF-8.
NAME_BYTES_MAX: Final = 128

# Code of a State or organisation, in bytes of ASCII.
PARTY_BYTES_MAX: Final = 16

# --- Envelopes --------------------------------------------------------------------------------

# Body ciphertext. What is longer is said in several acts.
BODY_BYTES_MAX: Final = 262_144

# Audit ciphertext: the largest class of 512 bytes and its overhead.
AUDIT_BYTES_MAX: Final = 512 + 72

# Core of an envelope to 8 desks with 16 attachments is under 1 kB.
CORE_BYTES_MAX: Final = 2_048

# Desks and auditors that one envelope addresses.
RECIPIENTS_MAX: Final = 10

# Attachments that one envelope names.
BLOBS_MAX: Final = 16

# A wrap of 32 bytes: sealed 1,168, from the own epoch seed 72.
WRAP_BYTES_MAX: Final = 1_168

# Everything posted at once: core, signature, body, audit part and wraps, with their framing.
UPLOAD_BYTES_MAX: Final = 281_600

# Smallest padded body, in bytes; below it the length would tell acts apart.
BODY_CLASS_BYTES_MIN: Final = 256

# Own epoch keys kept parsed in memory, where their seeds are anyway: a mailbox is opened with few.
SEAL_KEYS_CACHED_MAX: Final = 16

# Envelopes that one receipt confirms.
RECEIPT_IDS_MAX: Final = 128

# A receipt's signed bytes: 128 ids with core hashes, 52 bytes each, and the rest.
RECEIPT_BYTES_MAX: Final = 6_912

# Seconds within which the relay promises to have an accepted object in the log.
PROMISE_WITHIN_SECONDS: Final = 60

# A promise's signed bytes: a hash, two numbers and their names are 80.
PROMISE_BYTES_MAX: Final = 128

# Seconds since 1970 that a promise may name: the year 36812.
PROMISE_AT_MAX: Final = 1 << 40

# A direct stamp's signed bytes: two hashes, a time and their names are 104.
STAMP_BYTES_MAX: Final = 128

# Envelopes that one notice names, as in a receipt.
NOTICE_IDS_MAX: Final = 128

# A notice's signed bytes: 63 stamps of 206 bytes, with names as long as they may be, and the rest.
NOTICE_BYTES_MAX: Final = 13_312

# --- Time -------------------------------------------------------------------------------------

# Seconds between two witnessed checkpoints above which there was an outage. A relay publishes one
# at least every ten minutes, so it has missed one of them.
OUTAGE_GAP_SECONDS_MIN: Final = 1_200

# Witnesses without which figures rank nobody: of two, either one could be the liar.
RANKED_WITNESSES_MIN: Final = 3

# --- Acts -------------------------------------------------------------------------------------

# One free text of an act, in bytes of UTF-8.
PROSE_BYTES_MAX: Final = 65_536

# Measures asked for in one request, persons named in it, codes in one list.
ITEMS_MAX: Final = 64
PERSONS_MAX: Final = 256
CODES_MAX: Final = 16

# Exact counts in an act: more victims than this are a population.
COUNT_MAX: Final = 1_000_000

# Days that whoever sent something keeps it after it was seen in the log: as long as a relay keeps
# backups, so that a restored relay can be filled again.
KEPT_DAYS: Final = 35

# --- The log ----------------------------------------------------------------------------------

# A signed note, a policy or the head of a proof: room for 16 signatures of 5 kB, the largest
# post-quantum ones, which every verifier of notes must accept.
NOTE_BYTES_MAX: Final = 131_072

# Signature lines of one note.
NOTE_SIGNATURES_MAX: Final = 64

# Witnesses of one deployment: every line of a note but the log's. Each adds 130 bytes to it.
WITNESSES_MAX: Final = 63

# Hashes of one inclusion or consistency proof: one for each level of a tree of 2**63 - 1 leaves.
PROOF_HASHES_MAX: Final = 63

# Witnesses of a deployment that has anchors: each then has two lines in a note, one of 3.4 kB.
ANCHOR_WITNESSES_MAX: Final = 31

# Groups of a quorum, itself among them: what every reader of policies is expected to take.
GROUPS_MAX: Final = 32

# Groups inside each other: States of a subregion, of a region, and of the deployment.
GROUP_DEPTH_MAX: Final = 4

# Address of one witness in a policy, in bytes of ASCII.
WITNESS_URL_BYTES_MAX: Final = 256

# A policy in its text form. The largest are 63 witnesses with addresses, and 31 with anchor keys.
POLICY_BYTES_MAX: Final = 81_920

# Entries that the relay gives to a witness or a mirror at once: 266 kB.
LEAVES_PAGE_MAX: Final = 4_096

# Published checkpoints, or anchors, that the relay gives at once.
CHECKPOINTS_PAGE_MAX: Final = 200
ANCHORS_PAGE_MAX: Final = 16

# A file of evidence: two notes, a proof and the rest.
EVIDENCE_BYTES_MAX: Final = 2 * NOTE_BYTES_MAX + 4_096

# A certificate: a genesis, a body, proofs, and a few statements of 10 KB each.
CERTIFICATE_BYTES_MAX: Final = 2 * 1024 * 1024

# Statements in a certificate: for each of the few desks its own, a device's and its admins'.
CERTIFICATE_STATEMENTS_MAX: Final = 64

# Receipts in a certificate; an act has one counterpart and up to eight auditors.
CERTIFICATE_RECEIPTS_MAX: Final = 9

# --- Witness ----------------------------------------------------------------------------------

# Body of a request: a checkpoint and the 64 lines that may stand before it.
WITNESS_REQUEST_BYTES_MAX: Final = NOTE_BYTES_MAX + 4_096

# Requests that a witness reads at the same time; more are asked to come back.
WITNESS_REQUESTS_AT_ONCE_MAX: Final = 64

# Seconds in which a request's body must have arrived.
WITNESS_BODY_SECONDS_MAX: Final = 10

# Seconds that an idle connection to a witness stays open.
WITNESS_IDLE_SECONDS_MAX: Final = 30

# Seconds that a witness goes on reading after a refusal, so that the refusal is not lost.
WITNESS_LINGER_SECONDS_MAX: Final = 1

# Seconds that a witness waits for requests under way when it is asked to stop.
WITNESS_STOP_SECONDS_MAX: Final = 5

# Seconds that a witness waits for another process that writes to its memory.
WITNESS_LOCK_SECONDS_MAX: Final = 5

# Pairs of checkpoints kept as evidence, for each log and kind. One convicts a log; more only show
# how far it went.
WITNESS_EVIDENCE_MAX: Final = 1_000

# Body of a witness's answer: a cosignature of 130 bytes, one of 3.3 kB for an anchor, or a tile.
WITNESS_ANSWER_BYTES_MAX: Final = 65_536

# Stamps that a witness gives to everybody together, on average and at once.
WITNESS_STAMPS_PER_SECOND: Final = 20
WITNESS_STAMPS_BURST: Final = 200

# Seconds that a witness replays entries before it answers that it is not so far yet. It goes on
# where it was when it is asked again.
WITNESS_REPLAY_SECONDS_MAX: Final = 8

# Seconds for either side of a link to prove itself, and requests that a link carries at once.
WITNESS_LINK_SECONDS_MAX: Final = 10
WITNESS_LINK_ASKS_MAX: Final = 8

# Seconds that a witness waits before it opens a link again, after many failures.
WITNESS_LINK_PAUSE_SECONDS_MAX: Final = 60

# Statements that a mirror gives at once.
MIRROR_STATEMENTS_MAX: Final = 100
