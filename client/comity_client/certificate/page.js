// Verifies the certificate in this page: PROTOCOL [V-4], with nothing but the page itself. It builds
// the text that the page must show from what it verified, and says that all holds only when the
// page shows exactly that.

const utf8 = (text) => new TextEncoder().encode(text);
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
function concat(...parts) {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
const same = (a, b) => a.length === b.length && a.every((byte, i) => byte === b[i]);
const sha = async (bits, data) => new Uint8Array(await crypto.subtle.digest(`SHA-${bits}`, data));
const bind = (kind, data) => concat(utf8(`comity/1/${kind}`), [0], data);
const digest = (kind, data) => sha(256, bind(kind, data));

function must(holds, text) {
  if (!holds) throw new Error(text);
}

function bigEndian(bytes) {
  return bytes.reduce((value, byte) => value * 256n + BigInt(byte), 0n);
}

function fromBase64(text, what) {
  must(/^[A-Za-z0-9+/]+={0,2}$/.test(text), `${what} is not base64`);
  const letters = atob(text);
  must(btoa(letters) === text, `${what} is not canonical base64`);
  return Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
}

function toText(bytes, what) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Error(`${what} is not UTF-8`);
  }
}

function decimal(text, what) {
  must(/^(0|[1-9][0-9]{0,18})$/.test(text), `${what} is not a whole number in canonical form`);
  const value = BigInt(text);
  must(value < 2n ** 63n, `${what} is too large`);
  return value;
}

// --- The encoding: strict CBOR (sections C-1 to C-5). Integers are BigInt, maps are Map.

function parseCbor(data, what) {
  let at = 0;
  const take = (count) => {
    must(count <= data.length - at, `${what} ends too early`);
    at += count;
    return data.subarray(at - count, at);
  };
  const value = (depth) => {
    const [first] = take(1);
    if (first === 0xf4 || first === 0xf5) return first === 0xf5;
    if (first === 0xf6) return null;
    const [major, low] = [first >> 5, first & 31];
    must(major <= 5 && low < 28, `${what} has a tag, a float or an unknown length`);
    let number = BigInt(low);
    if (low >= 24) {
      number = bigEndian(take(1 << (low - 24)));
      const least = low === 24 ? 24n : 2n ** BigInt(8 << (low - 25));
      must(number >= least, `${what} has a number that is not in its shortest form`);
    }
    if (major === 0) return number;
    if (major === 1) return -1n - number;
    must(number <= BigInt(data.length), `${what} ends too early`);
    const count = Number(number);
    if (major === 2) return take(count);
    if (major === 3) return toText(take(count), what);
    must(depth <= 8, `${what} nests too deep`);
    if (major === 4) return Array.from({ length: count }, () => value(depth + 1));
    const map = new Map();
    let last = "";
    for (let i = 0; i < count; i++) {
      const start = at;
      const name = value(depth + 1);
      const encoded = hex(data.subarray(start, at));
      must(typeof name === "string" && encoded > last, `${what} has map keys out of order`);
      last = encoded;
      map.set(name, value(depth + 1));
    }
    return map;
  };
  const found = value(1);
  must(at === data.length, `${what} has bytes after its end`);
  return found;
}

function fieldsOf(data, what, required, optional = []) {
  const map = parseCbor(data, what);
  must(map instanceof Map, `${what} is not a map`);
  must(required.every((name) => map.has(name)), `${what} lacks a field`);
  const known = new Set([...required, ...optional]);
  must([...map.keys()].every((name) => known.has(name)), `${what} has an unknown field`);
  return map;
}

function typed(map, what, type) {
  must(map.get("v") === 1n && map.get("t") === type, `${what} is of another version or type`);
  return map;
}

function bytesOf(value, what, length) {
  must(value instanceof Uint8Array, `${what} is not a byte string`);
  must(length === undefined || value.length === length, `${what} has another length`);
  return value;
}

function listOf(value, what, length) {
  must(Array.isArray(value), `${what} is not an array`);
  must(length === undefined || value.length === length, `${what} has another length`);
  return value;
}

const integerOf = (value, what) => {
  must(typeof value === "bigint" && value >= 0n && value < 2n ** 63n, `${what} is not a number`);
  return value;
};

// --- Signatures

const LOW_ORDER = [
  0n,
  1n,
  2n ** 255n - 20n,
  bigEndian(
    [..."26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05".matchAll(/../g)]
      .map(([pair]) => parseInt(pair, 16))
      .reverse(),
  ),
  bigEndian(
    [..."c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a".matchAll(/../g)]
      .map(([pair]) => parseInt(pair, 16))
      .reverse(),
  ),
];

async function verifyEd25519(key, message, signature, what) {
  // Keys of low order or in a second form are refused [K-2]: one signature would fit many messages.
  const y = bigEndian(Array.from(key).reverse()) % 2n ** 255n;
  must(y < 2n ** 255n - 19n && !LOW_ORDER.includes(y), `${what} is by an unusable key`);
  must(signature.length === 64, `${what} has another length`);
  const usages = ["verify"];
  const imported = await crypto.subtle.importKey("raw", key, "Ed25519", false, usages);
  const holds = await crypto.subtle.verify("Ed25519", imported, signature, message);
  must(holds, `${what} does not verify`);
}

const verifyFast = (key, kind, message, signature, what) =>
  verifyEd25519(key, bind(kind, message), signature, what);

// A full signature holds when both of its halves do [K-3].
async function verifyFull(key, kind, message, signature, what) {
  must(key.length === 1984 && signature.length === 3373, `${what} has another length`);
  const label = utf8("COMPSIG-MLDSA65-Ed25519-SHA512");
  const context = utf8(`comity/1/${kind}`);
  const prefix = utf8("CompositeAlgorithmSignatures2025");
  const hashed = await sha(512, message);
  const framed = concat(prefix, label, [context.length], context, hashed);
  await verifyEd25519(key.subarray(1952), framed, signature.subarray(3309), what);
  const holds = verifyMldsa65(key.subarray(0, 1952), framed, label, signature.subarray(0, 3309));
  must(holds, `${what} does not verify in its ML-DSA half`);
}

const keyId = async (full) => (await digest("key", full)).subarray(0, 16);

// --- Policy, notes, proofs

async function parseVerifierKey(text, type) {
  const [name, id, material, ...rest] = text.split("+");
  // Base64 may hold a plus too.
  const data = fromBase64([material, ...rest].join("+"), "verifier key");
  must(data.length === 33 && data[0] === type, "policy has a key of another type");
  const hashed = await sha(256, concat(utf8(`${name}\n`), data));
  must(hex(hashed.subarray(0, 4)) === id, "policy has a key whose id does not fit");
  return { name, id, key: data.subarray(1) };
}

async function parsePolicy(text) {
  must(text.endsWith("\n"), "policy does not end in a newline");
  const lines = text.slice(0, -1).split("\n");
  const free = new Map();
  const witnesses = [];
  let log = null;
  const takeMember = (name) => {
    const found = free.get(name);
    must(found, "policy has a member that it does not name before");
    free.delete(name);
    return found;
  };
  const last = lines.pop().split(" ");
  for (const line of lines) {
    const [word, name, ...rest] = line.split(" ");
    must(word === "log" || !free.has(name), "policy has a name twice");
    if (word === "log" && log === null && rest.length === 0) {
      log = await parseVerifierKey(name, 1);
    } else if (word === "witness" && (rest.length === 1 || rest.length === 2)) {
      const witness = await parseVerifierKey(rest[0], 4);
      must(witness.name === name, "policy calls a witness otherwise than its key does");
      witnesses.push(witness);
      free.set(name, witness);
    } else if (word === "group" && rest.length >= 2) {
      const members = rest.slice(1).map(takeMember);
      const threshold = Number(decimal(rest[0], "threshold"));
      must(threshold >= 1 && threshold <= members.length, "policy has a threshold out of reach");
      free.set(name, { threshold, members });
    } else {
      throw new Error("policy has a line that is unknown");
    }
  }
  must(last.length === 2 && last[0] === "quorum" && log, "policy has no log or no quorum");
  const quorum = takeMember(last[1]);
  must(quorum.members && free.size === 0, "policy has members outside its quorum");
  const keys = [log, ...witnesses].map((one) => hex(one.key));
  must(new Set(keys).size === keys.length, "policy has one key twice");
  const outline = text.split("\n").filter((line) => /^(group|quorum) /.test(line)).join("\n");
  return { log, witnesses, quorum, outline };
}

// The time of a group is element floor(k/2) of the sorted times of its members that have one [L-5].
function timeOf(group, times) {
  const found = group.members
    .map((one) => (one.members ? timeOf(one, times) : times.get(one.name)))
    .filter((time) => time !== undefined)
    .sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  return found.length < group.threshold ? undefined : found[Math.floor(group.threshold / 2)];
}

function parseNote(data, what) {
  const whole = toText(data, what);
  // eslint-disable-next-line no-control-regex
  must(!/[\x00-\x09\x0b-\x1f]/.test(whole), `${what} has control characters`);
  const end = whole.lastIndexOf("\n\n");
  must(end > 0 && whole.endsWith("\n"), `${what} is not a signed note`);
  const text = whole.slice(0, end + 1);
  const lines = whole.slice(end + 2, -1).split("\n");
  must(lines.length <= 64, `${what} has too many signatures`);
  const signatures = lines.map((line) => {
    const [dash, name, encoded, ...rest] = line.split(" ");
    must(dash === "\u2014" && encoded && rest.length === 0, `${what} has a broken signature line`);
    const signed = fromBase64(encoded, "signature");
    must(signed.length > 4, `${what} has a signature that is too short`);
    return { name, id: hex(signed.subarray(0, 4)), signature: signed.subarray(4) };
  });
  const named = signatures.map((one) => `${one.name} ${one.id}`);
  must(new Set(named).size === named.length, `${what} is signed twice by one key`);
  return { text, signatures };
}

const lineBy = (note, key) =>
  note.signatures.find((one) => one.name === key.name && one.id === key.id);

async function verifyCheckpoint(data, policy, what) {
  const note = parseNote(data, what);
  const own = lineBy(note, policy.log);
  must(own, `${what} is not signed by the log`);
  await verifyEd25519(policy.log.key, utf8(note.text), own.signature, `${what}, log's signature`);
  const lines = note.text.split("\n");
  must(lines.length === 4 && lines[3] === "", `${what} has more or fewer than three lines`);
  must(lines[0] === policy.log.name, `${what} is of another log`);
  const size = decimal(lines[1], "tree size");
  const root = fromBase64(lines[2], "root");
  must(root.length === 32, `${what} has a root of another length`);
  return { note, size, root };
}

// The last second that a calendar can show.
const TIME_MAX = 253402300799n;

async function verifyWitnesses(head, policy, what) {
  const times = new Map();
  for (const witness of policy.witnesses) {
    const line = lineBy(head.note, witness);
    if (!line) continue;
    const time = bigEndian(line.signature.subarray(0, 8));
    must(time <= TIME_MAX, `${what}: ${witness.name} states an impossible time`);
    const message = utf8(`cosignature/v1\ntime ${time}\n${head.note.text}`);
    const by = `${what}, cosignature of ${witness.name}`;
    await verifyEd25519(witness.key, message, line.signature.subarray(8), by);
    times.set(witness.name, time);
  }
  const sealed = timeOf(policy.quorum, times);
  must(sealed !== undefined, `${what} has too few cosignatures of the policy's witnesses`);
  const sorted = [...times].sort(([a, one], [b, other]) =>
    one !== other ? (one < other ? -1 : 1) : a < b ? -1 : 1,
  );
  return { ...head, sealed, times: sorted };
}

function parseProof(data, what) {
  const whole = toText(data, what);
  const end = whole.indexOf("\n\n");
  must(end > 0, `${what} has no empty line before its checkpoint`);
  const lines = whole.slice(0, end).split("\n");
  must(lines.shift() === "c2sp.org/tlog-proof@v1", `${what} is not a tlog-proof`);
  const extra = lines[0]?.startsWith("extra ")
    ? fromBase64(lines.shift().slice(6), "extra line")
    : null;
  must(lines[0]?.startsWith("index "), `${what} has no index`);
  const index = decimal(lines.shift().slice(6), "leaf index");
  must(lines.length <= 63, `${what} has too many hashes`);
  const hashes = lines.map((line) => fromBase64(line, "hash of the proof"));
  return { extra, index, hashes, note: utf8(whole.slice(end + 2)) };
}

const leafHash = (entry) => sha(256, concat([0], entry));
const nodeHash = (left, right) => sha(256, concat([1], left, right));

async function verifyInclusion(entry, index, hashes, head, what) {
  must(index < head.size, `${what} is for an entry outside the log`);
  let [position, last] = [index, head.size - 1n];
  let computed = await leafHash(entry);
  for (const sibling of hashes) {
    bytesOf(sibling, what, 32);
    must(last > 0n, `${what} is too long`);
    if (position & 1n || position === last) {
      computed = await nodeHash(sibling, computed);
      while (!(position & 1n) && position > 0n) {
        position >>= 1n;
        last >>= 1n;
      }
    } else {
      computed = await nodeHash(computed, sibling);
    }
    position >>= 1n;
    last >>= 1n;
  }
  must(last === 0n, `${what} is too short`);
  must(same(computed, head.root), `${what} does not lead to the root that was cosigned`);
}

const leafOf = async (first, kind, what, payload) =>
  concat([first], await digest(kind, what), await digest("leaf-places", payload));

// --- Encryption: Cobblestone-256, C2SP chunked-encryption with HKDF-SHA512

async function expand(key, info, length) {
  const algorithm = { name: "HMAC", hash: "SHA-512" };
  const imported = await crypto.subtle.importKey("raw", key, algorithm, false, ["sign"]);
  let [found, block] = [new Uint8Array(), new Uint8Array()];
  for (let n = 1; found.length < length; n++) {
    block = new Uint8Array(await crypto.subtle.sign("HMAC", imported, concat(block, info, [n])));
    found = concat(found, block);
  }
  return found.subarray(0, length);
}

async function decrypt(key, kind, info, ciphertext) {
  must(ciphertext.length >= 72, "body is too short");
  const [salt, commitment] = [ciphertext.subarray(0, 24), ciphertext.subarray(24, 56)];
  const chunks = ciphertext.subarray(56);
  const name = utf8("c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0");
  const derived = await expand(key, concat(name, salt, bind(kind, info)), 76);
  must(same(derived.subarray(44), commitment), "body does not open with this key");
  const aes = derived.subarray(0, 32);
  const imported = await crypto.subtle.importKey("raw", aes, "AES-GCM", false, ["decrypt"]);
  const base = bigEndian(derived.subarray(32, 44));
  const opened = [];
  const size = 16384 + 16;
  must(chunks.length % size >= 16, "body is cut");
  for (let n = 0; n * size < chunks.length; n++) {
    const nonce = (base ^ BigInt(n)).toString(16).padStart(24, "0");
    const iv = Uint8Array.from(nonce.match(/../g), (pair) => parseInt(pair, 16));
    const chunk = chunks.subarray(n * size, (n + 1) * size);
    try {
      const algorithm = { name: "AES-GCM", iv };
      opened.push(new Uint8Array(await crypto.subtle.decrypt(algorithm, imported, chunk)));
    } catch {
      throw new Error("body was altered");
    }
  }
  return concat(...opened);
}

function unpad(padded) {
  let end = padded.length;
  while (end > 0 && padded[end - 1] === 0) end--;
  must(end > 0 && padded[end - 1] === 0x80, "body has no padding");
  return padded.subarray(0, end - 1);
}

// --- What the certificate says, verified in the order of check.py

const CERTIFICATE = [
  ...["v", "t", "genesis", "proof", "core", "sig", "seen", "statements", "receipts", "stamps"],
  ...["names", "open"],
];
const LINK = ["v", "t", "deployment", "desk", "seq", "prev"];
const EVENTS = ["lead", "request", "ack", "consult", "answer", "refuse", "close"];

async function readGenesis(payload) {
  const names = ["v", "t", "policy", "anchors", "relay", "roots"];
  const map = typed(fieldsOf(payload, "genesis", names), "genesis", "genesis");
  const roots = new Map();
  for (const item of listOf(map.get("roots"), "roots")) {
    const inner = ["v", "t", "code", "version", "k", "custodians"];
    const root = typed(fieldsOf(bytesOf(item, "root"), "root", inner), "root", "root");
    const custodians = new Map();
    for (const full of listOf(root.get("custodians"), "custodians")) {
      custodians.set(hex(await keyId(bytesOf(full, "custodian", 1984))), full);
    }
    const threshold = Number(integerOf(root.get("k"), "threshold"));
    must(threshold >= 1 && threshold <= custodians.size, "root has a threshold out of reach");
    must(!roots.has(root.get("code")), "genesis has a party twice");
    roots.set(root.get("code"), { custodians, threshold, hash: await digest("leaf-statement", item) });
  }
  const hash = await digest("leaf-statement", payload);
  const text = map.get("policy");
  const policy = await parsePolicy(text);
  return { hash, deployment: hash.subarray(0, 16), text, policy, roots };
}

function readCore(data) {
  const names = ["v", "t", "id", "from", "dev", "seq", "seen", "b", "a", "to"];
  const map = typed(fieldsOf(data, "core", names, ["ref", "blobs"]), "core", "env");
  const part = (name) => {
    const [size, hashed] = listOf(map.get(name), "core, part", 2);
    return { size: integerOf(size, "size"), hash: bytesOf(hashed, "hash", 32) };
  };
  const to = listOf(map.get("to"), "recipients").map((item) => {
    const [desk, , kind] = listOf(item, "recipient", map.has("ref") ? 3 : 4);
    return { desk: bytesOf(desk, "recipient", 16), isAuditor: kind === 2n };
  });
  const from = bytesOf(map.get("from"), "sender", 16);
  const others = to.filter((one) => !one.isAuditor && !same(one.desk, from));
  must(others.length === 1, "core does not address one other desk");
  return {
    id: bytesOf(map.get("id"), "envelope", 16),
    from,
    device: bytesOf(map.get("dev"), "device", 16),
    seen: bytesOf(map.get("seen"), "seen", 32),
    body: part("b"),
    audit: part("a"),
    to,
    counterpart: others[0].desk,
    blobs: map.has("blobs") ? listOf(map.get("blobs"), "attachments").length : 0,
  };
}

async function takeStatement(item, head, genesis, known) {
  const [index, payload, signatures, hashes] = listOf(item, "statement", 4);
  const leaf = await leafOf(1, "leaf-statement", bytesOf(payload, "statement"), payload);
  integerOf(index, "leaf index");
  await verifyInclusion(leaf, index, listOf(hashes, "proof"), head, "proof of a statement");
  const type = parseCbor(payload, "statement").get("t");
  const own = type === "desk"
    ? ["party", "authority", "policy"]
    : ["fast", "full", "seal", "officer", "role", "box"];
  const map = typed(fieldsOf(payload, "statement", [...LINK, ...own]), "statement", type);
  must(type === "desk" || type === "device", "certificate has a statement that admits nobody");
  must(same(map.get("deployment"), genesis.deployment), "statement is of another deployment");
  const desk = hex(bytesOf(map.get("desk"), "desk", 16));
  const party = type === "desk" ? map.get("party") : known.desks.get(desk)?.party;
  const root = genesis.roots.get(party);
  must(root, "statement is of a desk or a party that is not shown");
  const keys = new Map(root.custodians);
  const admins = [...known.devices].filter(([, one]) => one.isAdmin && one.desk === desk);
  let id = null;
  if (type === "device") {
    for (const [other, one] of admins) keys.set(other, one.full);
    id = hex(await keyId(bytesOf(map.get("full"), "full key", 1984)));
    keys.set(id, map.get("full"));
  }
  const signers = new Set();
  for (const pair of listOf(signatures, "signatures")) {
    const [signer, signature] = listOf(pair, "signature", 2);
    const key = keys.get(hex(signer));
    must(key && !signers.has(hex(signer)), "statement has a signer who may not sign it [S-2]");
    await verifyFull(key, "statement", payload, signature, "signature of a statement");
    signers.add(hex(signer));
  }
  const custodians = [...signers].filter((one) => root.custodians.has(one)).length;
  const isDecided = custodians >= root.threshold;
  if (type === "desk") {
    must(map.get("seq") === 0n && same(map.get("prev"), root.hash), "desk is out of its place [S-1]");
    must(isDecided && !known.desks.has(desk), "desk has too few custodians' signatures [S-11]");
    known.desks.set(desk, { party, authority: map.get("authority") });
    return;
  }
  const isAdmin = map.get("role") === "admin";
  const by = admins.filter(([other]) => signers.has(other)).map(([other]) => other);
  const isAdmitted = isDecided || (!isAdmin && by.length > 0);
  must(isAdmitted && signers.has(id), "device is not admitted by who may [S-3] [S-4]");
  must(!known.devices.has(id), "device is admitted twice");
  by.forEach((other) => known.used.add(other));
  const [fast, full] = [bytesOf(map.get("fast"), "fast key", 32), map.get("full")];
  known.devices.set(id, { desk, index, fast, full, isAdmin });
}

function deviceOf(known, device, desk, before) {
  const found = known.devices.get(hex(device));
  must(found && found.desk === hex(desk), "device that signed is not shown to be of its desk [E-1]");
  must(found.index < before, "device that signed was admitted only later [E-1]");
  known.used.add(hex(device));
  return found;
}

function parseReceipt(payload) {
  const names = ["v", "t", "desk", "dev", "seq", "held", "seen", "n"];
  const map = typed(fieldsOf(payload, "receipt", names), "receipt", "receipt");
  return { desk: map.get("desk"), device: map.get("dev"), held: listOf(map.get("held"), "held") };
}

// The bytes that a witness signs are written here in the order of the encoding: at, deployment, ...
function stampPayload(deployment, what, at) {
  const number = at < 24n ? 0 : at < 2n ** 8n ? 1 : at < 2n ** 16n ? 2 : at < 2n ** 32n ? 4 : 8;
  const head = number === 0 ? [Number(at)] : [24 + Math.log2(number)];
  const tail = number === 0 ? [] : at.toString(16).padStart(2 * number, "0").match(/../g);
  const text = (word) => [0x60 + word.length, ...utf8(word)];
  return concat(
    [0xa5],
    [...text("t"), ...text("stamp")],
    [...text("v"), 1],
    [...text("at"), ...head, ...tail.map((pair) => parseInt(pair, 16))],
    [...text("what"), 0x58, 32, ...what],
    [...text("deployment"), 0x50, ...deployment],
  );
}

async function openBody(opening, core, genesis, device) {
  const [body, key] = listOf(opening, "opening", 2);
  const isNamed = BigInt(body.length) === core.body.size && same(await sha(256, body), core.body.hash);
  must(isNamed, "body is not the one that the core names [E-2]");
  bytesOf(key, "body key", 32);
  const plain = unpad(await decrypt(key, "body", core.id, body));
  const map = typed(fieldsOf(plain, "body", ["v", "t", "act"], ["sig", "cp"]), "body", "body");
  const act = bytesOf(map.get("act"), "act");
  const bound = concat(genesis.deployment, core.from, core.counterpart, act);
  const signature = map.has("sig") ? bytesOf(map.get("sig"), "full signature", 3373) : null;
  const names = ["v", "t", "e", "x", "salt"];
  const fields = typed(fieldsOf(act, "act", names, ["head", ...ACT_FIELDS]), "act", "act");
  must(EVENTS.includes(fields.get("e")), "act is of an unknown kind");
  ["x", "head"].filter((name) => fields.has(name)).forEach((name) => {
    bytesOf(fields.get(name), `act, ${name}`, 16);
  });
  ACT_FIELDS.filter((name) => fields.has(name)).forEach((name) => {
    checkField(name, fields.get(name));
  });
  const id = await digest("act-id", bound);
  return { key, id, bound, signature, fields, device };
}

async function verifyAll(data, check) {
  const certificate = await check("form", () => {
    const map = typed(fieldsOf(data, "certificate", CERTIFICATE), "certificate", "certificate");
    ["genesis", "proof", "core"].forEach((name) => bytesOf(map.get(name), name));
    ["statements", "receipts", "stamps", "names"].forEach((name) => listOf(map.get(name), name));
    return map;
  });
  const given = (name) => certificate.get(name);
  const genesis = await check("genesis", () => readGenesis(given("genesis")));
  const { policy } = genesis;
  const proof = await check("form", () => parseProof(given("proof"), "proof"));
  const head = await check("log", () => verifyCheckpoint(proof.note, policy, "checkpoint"));
  const under = await check("witnesses", () => verifyWitnesses(head, policy, "checkpoint"));
  const coreHash = await digest("envelope", given("core"));
  await check("place", async () => {
    must(proof.extra?.length === 32, "proof has no places");
    const entry = concat([0], await digest("leaf-envelope", coreHash), proof.extra);
    await verifyInclusion(entry, proof.index, proof.hashes, under, "proof of the act's place");
  });
  const received = await check("receipts", async () => {
    const found = [];
    for (const item of given("receipts")) {
      const [file, payload, signature] = listOf(item, "receipt", 3);
      const inner = parseProof(file, "proof of a receipt");
      must(inner.extra === null, "proof of a receipt has an extra line");
      const first = await verifyCheckpoint(inner.note, policy, "checkpoint of a receipt");
      const at = await verifyWitnesses(first, policy, "checkpoint of a receipt");
      const leaf = await leafOf(0, "leaf-receipt", payload, payload);
      await verifyInclusion(leaf, inner.index, inner.hashes, at, "proof of a receipt");
      found.push({ ...parseReceipt(payload), payload, signature, index: inner.index, at });
    }
    return found;
  });
  const known = { desks: new Map(), devices: new Map(), used: new Set() };
  await check("statements", async () => {
    const all = [under, ...received.map((one) => one.at)];
    const largest = all.reduce((a, b) => (b.size > a.size ? b : a));
    for (const item of given("statements")) await takeStatement(item, largest, genesis, known);
  });
  const core = await check("form", () => readCore(given("core")));
  const device = await check("sender", async () => {
    const found = deviceOf(known, core.device, core.from, proof.index);
    const signature = bytesOf(given("sig"), "signature", 64);
    await verifyFast(found.fast, "envelope", given("core"), signature, "signature of the core");
    return found;
  });
  const notBefore = await check("seen", async () => {
    const note = given("seen");
    if (note === null) return null;
    must(same(await sha(256, note), core.seen), "checkpoint is not the one that the author had seen");
    const seen = await verifyCheckpoint(note, policy, "checkpoint that the author had seen");
    return (await verifyWitnesses(seen, policy, "checkpoint that the author had seen")).sealed;
  });
  await check("receipts", async () => {
    for (const one of received) {
      const by = deviceOf(known, one.device, one.desk, one.index);
      await verifyFast(by.fast, "receipt", one.payload, one.signature, "signature of a receipt");
      const isOther = !same(one.desk, core.from);
      must(isOther && core.to.some((to) => same(to.desk, one.desk)), "receipt is of a stranger");
      const holds = one.held.some(([id, hash]) => same(id, core.id) && same(hash, coreHash));
      must(holds, "receipt is for another act");
    }
  });
  const stamps = new Map();
  await check("stamps", async () => {
    for (const item of given("stamps")) {
      const [name, at, signature] = listOf(item, "stamp", 3);
      const witness = policy.witnesses.find((one) => one.name === name);
      must(witness && !stamps.has(name), "stamp is of somebody who is no witness, or there twice");
      must(integerOf(at, "time") <= TIME_MAX, `stamp of ${name} states an impossible time`);
      const payload = stampPayload(genesis.deployment, coreHash, at);
      await verifyFast(witness.key, "stamp", payload, signature, `stamp of ${name}`);
      stamps.set(name, at);
    }
  });
  const names = listOf(given("names"), "names").map((item) => listOf(item, "name", 2));
  await check("form", () => {
    const isAddressed = ([desk]) => core.to.some((to) => same(to.desk, desk));
    must(names.every(isAddressed), "certificate names a desk that is not addressed");
  });
  let opened = null;
  if (given("open") !== null) {
    opened = await check("body", () => openBody(given("open"), core, genesis, device));
    await check("full", async () => {
      const { bound, signature } = opened;
      if (signature !== null) {
        await verifyFull(device.full, "act", bound, signature, "full signature of the act");
      }
    });
  }
  await check("statements", () => {
    const all = [...known.devices.keys(), ...known.desks.keys()];
    core.to.forEach((to) => known.used.add(hex(to.desk)));
    must(all.every((one) => known.used.has(one)), "certificate has statements about others");
  });
  const signature = given("sig");
  const stamped = { stamps, at: timeOf(policy.quorum, stamps) };
  const place = { proof, under, notBefore };
  return { genesis, core, coreHash, signature, device, known, names, place, received, stamped, opened };
}

// --- What the page must show: the same rows as facts.py makes

const ACT_FIELDS = [
  ...["profile", "reference", "language", "basis", "offences", "urgency", "urgency_reason"],
  ...["due_on", "due_reason", "text", "authority", "proceeding", "facts", "items", "persons"],
  ...["purpose", "cases", "victims", "children", "handling", "topic", "grounds", "outcomes"],
];
const FREE_TEXT = [
  ...["reference", "due_reason", "text", "authority", "proceeding", "facts", "items", "persons"],
  ...["purpose", "grounds"],
];

const visible = (text) =>
  text.replace(/[\u202a-\u202e]/g, (mark) => `<U+${mark.charCodeAt(0).toString(16).toUpperCase()}>`);

function moment(seconds) {
  const text = new Date(Number(seconds) * 1000).toISOString();
  return `${text.slice(0, 10)} ${text.slice(11, 19)} UTC`;
}

const TEXT_LISTS = ["basis", "offences", "grounds", "outcomes"];

// The form of a field [A-3]; which codes a list may hold is left to the program.
function checkField(name, value) {
  const what = `act, ${name}`;
  const checkText = (text) => {
    must(typeof text === "string" && text.normalize("NFC") === text, `${what} is not text`);
    // eslint-disable-next-line no-control-regex
    must(!/[\x00-\x08\x0b-\x1f\x7f-\x9f]/.test(text), `${what} has control characters`);
  };
  if (name === "cases" || name === "victims") integerOf(value, what);
  else if (name === "handling") listOf(value, what, 3).forEach(checkText);
  else if (TEXT_LISTS.includes(name)) listOf(value, what).forEach(checkText);
  else if (name === "items" || name === "persons") {
    listOf(value, what).forEach((pair) => listOf(pair, what, 2).forEach(checkText));
  } else checkText(value);
}

// One value for each row of a field: in one row, what somebody wrote on a new line could pass for
// the next person.
function actValues(name, value, means) {
  if (name === "handling" || !Array.isArray(value)) return [[].concat(value).join(", ")];
  const meant = (code) => (Object.hasOwn(means, code) ? `${code} (${means[code]})` : code);
  const parts = value.map((one) => (Array.isArray(one) ? `${meant(one[0])}: ${one[1]}` : meant(one)));
  return parts.some((one) => one.includes(" ")) ? parts : [parts.join(", ")];
}

// A row is [label, value, whether the value is text that somebody wrote].
function sectionsOf(found, t) {
  const { genesis, core, known, place, opened } = found;
  const { proof, under, notBefore } = place;
  const describe = (desk) => {
    const stated = known.desks.get(hex(desk));
    return stated ? `${stated.party}/${stated.authority} ${hex(desk)}` : hex(desk);
  };
  const groups = hex(genesis.hash).match(/.{4}/g);
  const deployment = [
    [t.genesis, `${groups.slice(0, 8).join(" ")}\n${groups.slice(8).join(" ")}`],
    [t.deployment, hex(genesis.deployment)],
    [t.log, genesis.policy.log.name],
    [t.policy_hash, found.policyHash],
    [t.policy, genesis.text.slice(0, -1)],
  ];
  const act = [
    [t.envelope, hex(core.id)],
    [t.from, describe(core.from)],
    [t.to, describe(core.counterpart)],
    ...core.to.filter((to) => to.isAuditor).map((to) => [t.auditor, describe(to.desk)]),
    [t.device, hex(core.device)],
    [t.device_key, hex(found.device.fast)],
    [t.admitted, `${found.device.index}`],
    [t.core_hash, hex(found.coreHash)],
    [t.core_signature, hex(found.signature)],
    ...found.names.map(([desk, name]) => [t.named, `${hex(desk)}: ${visible(name)}`, true]),
  ];
  const where = [
    [t.index, `${proof.index}`],
    [t.size, `${under.size}`],
    [t.root, hex(under.root)],
    [t.places, hex(proof.extra)],
    [t.sealed, moment(under.sealed)],
    notBefore === null ? [t.not_before, t.unknown, true] : [t.not_before, moment(notBefore)],
  ];
  const cosigned = ({ times }) => times.map(([name, time]) => [t.witness, `${name}  ${moment(time)}`]);
  const witnesses = [[t.quorum, genesis.policy.outline], ...cosigned(under)];
  const receipts = found.received.flatMap((one) => [
    [t.receipt, describe(one.desk)],
    [t.device, hex(one.device)],
    [t.index, `${one.index}`],
    [t.sealed, moment(one.at.sealed)],
    ...cosigned(one.at),
  ]);
  const { stamps, at } = found.stamped;
  const stampRows = [...stamps].map(([name, time]) => [t.stamp, `${name}  ${moment(time)}`]);
  if (stampRows.length > 0) {
    stampRows.push(at === undefined ? [t.stamped, t.no_quorum, true] : [t.stamped, moment(at)]);
  }
  const content = [
    [t.body, opened ? t.opened : t.not_opened, true],
    [t.body_size, `${core.body.size}`],
    [t.body_hash, hex(core.body.hash)],
  ];
  if (opened) {
    const { fields } = opened;
    content.push(
      [t.body_key, hex(opened.key)],
      [t.act_id, hex(opened.id)],
      [t.full_signature, opened.signature ? t.present : t.absent, true],
      [t.event, t[`e_${fields.get("e")}`], true],
      [t.exchange, hex(fields.get("x"))],
    );
    if (fields.has("head")) content.push([t.head, hex(fields.get("head"))]);
    for (const name of ACT_FIELDS.filter((one) => fields.has(one))) {
      for (const value of actValues(name, fields.get(name), t.means)) {
        content.push([t[`f_${name}`], visible(value), FREE_TEXT.includes(name)]);
      }
    }
  }
  content.push(
    [t.audit, t.not_opened, true],
    [t.audit_size, `${core.audit.size}`],
    [t.audit_hash, hex(core.audit.hash)],
  );
  if (core.blobs > 0) content.push([t.blobs, `${core.blobs}`]);
  const none = (label) => [[label, t.none, true]];
  return {
    sections: [
      [t.s_deployment, deployment],
      [t.s_act, act],
      [t.s_place, where],
      [t.s_witnesses, witnesses],
      [t.s_receipts, receipts.length > 0 ? receipts : none(t.receipt)],
      [t.s_stamps, stampRows.length > 0 ? stampRows : none(t.stamp)],
      [t.s_content, content],
    ],
    notes: [opened ? t.l_open : t.l_closed, t.l_removed, t.l_names, t.l_program],
  };
}

const NUMBERS = /[0-9]+(?:[-/.:][0-9]+)+/g;
const escape = (text) =>
  text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);

// The same as page.py writes, letter for letter.
function renderHeader(t) {
  return [
    "<header>",
    `<h1>${escape(t.title)}</h1>`,
    `<p id="status" class="none" role="status">${escape(t.status_static)}</p>`,
    '<ul id="checks"></ul>',
    '<div id="compare"></div>',
    "</header>",
  ].join("\n");
}

function renderMain({ sections, notes }, t) {
  const lines = ["<main>", `<p>${escape(t.intro)}</p>`];
  for (const [title, rows] of sections) {
    lines.push("<section>", `<h2>${escape(title)}</h2>`, "<table>");
    for (const [label, value, isText] of rows) {
      const cell = isText ? '<td dir="auto">' : '<td class="m" dir="ltr">';
      const ordered = '<bdi dir="ltr">$&</bdi>';
      const text = isText ? escape(value).replace(NUMBERS, ordered) : escape(value);
      lines.push(`<tr><th scope="row">${escape(label)}</th>${cell}${text}</td></tr>`);
    }
    lines.push("</table>", "</section>");
  }
  lines.push("<section>", `<h2>${escape(t.s_limits)}</h2>`, "<ul>");
  for (const note of notes) lines.push(`<li>${escape(note)}</li>`);
  lines.push("</ul>", "</section>", "</main>");
  return lines.join("\n");
}

function requireShown(header, expected) {
  const template = document.createElement("template");
  template.innerHTML = expected;
  const wanted = [...template.content.children];
  const shown = [header, ...document.querySelectorAll("body > main")];
  const names = [...document.body.children].map((one) => one.localName).join(" ");
  must(names === "header main script script", "the page has more or less than a certificate has");
  if (shown.length === 2 && wanted.every((one, i) => one.isEqualNode(shown[i]))) return;
  const rows = (nodes) => nodes.flatMap((one) => [...one.querySelectorAll("h1, h2, p, tr, li")]);
  const [all, seen] = [rows(wanted), rows(shown)];
  const at = all.findIndex((row, i) => !seen[i]?.isEqualNode(row));
  const where = at < 0 ? "" : `: ${all[at].textContent.slice(0, 60)}`;
  throw new Error(`the page shows something else than the certificate says${where}`);
}

// --- The page

// RFC 8032, test 2: a browser that does not know Ed25519, or gets it wrong, must not judge.
async function canVerify() {
  const unhex = (text) => Uint8Array.from(text.match(/../g), (pair) => parseInt(pair, 16));
  const key = unhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
  const signature = unhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da" +
      "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
  );
  try {
    const imported = await crypto.subtle.importKey("raw", key, "Ed25519", false, ["verify"]);
    const verify = (message) => crypto.subtle.verify("Ed25519", imported, signature, message);
    const isLittleEndian = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;
    const one = Uint8Array.of(0x72);
    return isLittleEndian && (await verify(one)) === true && (await verify(Uint8Array.of(0))) === false;
  } catch {
    return false;
  }
}

function addLine(list, text, className) {
  const line = document.createElement("li");
  line.textContent = text;
  line.className = className;
  list.append(line);
}

// The header as it came, before this program writes into it.
const HEADER = document.querySelector("header").cloneNode(true);

// Verifies a certificate and that the page shows what it says; throws when one does not hold.
async function judge(data, t, check) {
  const found = await verifyAll(data, check);
  found.policyHash = hex(await sha(256, utf8(found.genesis.text)));
  await check("shown", () => {
    must(document.title === t.title, "the page has another title");
    requireShown(HEADER, `${renderHeader(t)}\n${renderMain(sectionsOf(found, t), t)}`);
  });
  return found.genesis.hash;
}

function textsOf(language) {
  const read = (table) =>
    Object.fromEntries(Object.entries(table).map(([name, each]) => [name, each[language] ?? each.en]));
  return { ...read(TEXTS), means: read(MEANINGS) };
}

async function run() {
  const t = textsOf(document.documentElement.lang);
  const status = document.getElementById("status");
  const list = document.getElementById("checks");
  const say = (state, text) => {
    document.documentElement.dataset.state = state;
    status.className = state;
    status.textContent = text;
  };
  say("running", t.status_running);
  if (!(await canVerify())) {
    say("unable", t.status_unable);
    return;
  }
  const begun = performance.now();
  const done = [];
  let current = "form";
  const check = async (name, act) => {
    current = name;
    const result = await act();
    if (!done.includes(name)) done.push(name);
    return result;
  };
  try {
    const data = await check("form", () => {
      const text = document.getElementById("certificate").textContent;
      return fromBase64(text.trim(), "certificate");
    });
    const hash = await judge(data, t, check);
    done.forEach((name) => addLine(list, t[`c_${name}`], "ok"));
    offerComparison(hash, t, say);
    say("ok", t.status_ok);
  } catch (error) {
    done.filter((name) => name !== current).forEach((name) => addLine(list, t[`c_${name}`], "ok"));
    addLine(list, `${t[`c_${current}`]} \u2014 ${error.message}`, "bad");
    say("bad", t.status_bad);
  }
  document.documentElement.dataset.milliseconds = Math.round(performance.now() - begun);
}

// The hash in the page proves nothing by itself: its maker could have invented a deployment.
function offerComparison(hash, t, say) {
  const label = document.createElement("label");
  const [input, result] = [document.createElement("input"), document.createElement("output")];
  input.dir = "ltr";
  input.spellcheck = false;
  label.append(t.compare_input, " ", input);
  document.getElementById("compare").append(label, result);
  input.addEventListener("input", () => {
    const typed = input.value.toLowerCase().replace(/[^0-9a-z]/g, "");
    if (typed.length === 0) {
      result.textContent = "";
      say("ok", t.status_ok);
    } else if (typed === hex(hash)) {
      result.textContent = t.compare_same;
      say("ok", t.status_same);
    } else if (hex(hash).startsWith(typed)) {
      result.textContent = "\u2026";
      say("ok", t.status_ok);
    } else {
      result.textContent = t.compare_other;
      say("bad", t.status_bad);
    }
  });
}

run();
