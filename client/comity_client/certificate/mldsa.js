// ML-DSA-65 (FIPS 204), verification only, because no browser has it yet. Nothing here is secret, so
// nothing has to take the same time for every input.

const Q = 8380417;

// Keccak-f[1600] on 25 lanes of two 32-bit halves each, low half first.
const ROUND_CONSTANTS = (() => {
  const constants = [];
  let register = 1;
  for (let round = 0; round < 24; round++) {
    let low = 0;
    let high = 0;
    for (let j = 0; j < 7; j++) {
      if (register & 1) {
        const bit = (1 << j) - 1;
        if (bit < 32) low |= 1 << bit;
        else high |= 1 << (bit - 32);
      }
      register = (register << 1) ^ (register >> 7 ? 0x171 : 0);
    }
    constants.push([low, high]);
  }
  return constants;
})();

const [LANE_FROM, LANE_TURN] = (() => {
  const from = new Array(25);
  const turn = new Array(25).fill(0);
  let [x, y] = [1, 0];
  for (let t = 0; t < 24; t++) {
    turn[x + 5 * y] = (((t + 1) * (t + 2)) / 2) % 64;
    [x, y] = [y, (2 * x + 3 * y) % 5];
  }
  for (let i = 0; i < 25; i++) {
    const [column, row] = [i % 5, (i - (i % 5)) / 5];
    from[row + 5 * ((2 * column + 3 * row) % 5)] = i;
  }
  return [from, turn];
})();

function permute(state) {
  const sums = new Int32Array(10);
  const moved = new Int32Array(50);
  for (const [low, high] of ROUND_CONSTANTS) {
    for (let x = 0; x < 10; x++) {
      sums[x] = state[x] ^ state[x + 10] ^ state[x + 20] ^ state[x + 30] ^ state[x + 40];
    }
    for (let x = 0; x < 5; x++) {
      const [before, after] = [2 * ((x + 4) % 5), 2 * ((x + 1) % 5)];
      const a = sums[before] ^ ((sums[after] << 1) | (sums[after + 1] >>> 31));
      const b = sums[before + 1] ^ ((sums[after + 1] << 1) | (sums[after] >>> 31));
      for (let y = 0; y < 50; y += 10) {
        state[y + 2 * x] ^= a;
        state[y + 2 * x + 1] ^= b;
      }
    }
    for (let i = 0; i < 25; i++) {
      const from = LANE_FROM[i];
      const turn = LANE_TURN[from];
      const swap = turn >= 32 ? 1 : 0;
      const one = state[2 * from + swap];
      const other = state[2 * from + 1 - swap];
      const by = turn & 31;
      moved[2 * i] = by ? (one << by) | (other >>> (32 - by)) : one;
      moved[2 * i + 1] = by ? (other << by) | (one >>> (32 - by)) : other;
    }
    for (let y = 0; y < 50; y += 10) {
      for (let x = 0; x < 10; x++) {
        state[y + x] = moved[y + x] ^ (~moved[y + ((x + 2) % 10)] & moved[y + ((x + 4) % 10)]);
      }
    }
    state[0] ^= low;
    state[1] ^= high;
  }
}

// SHAKE as a stream: absorbs all parts at once, then gives as many bytes as are asked for.
class Shake {
  constructor(rate, ...parts) {
    this.rate = rate;
    this.state = new Int32Array(50);
    this.bytes = new Uint8Array(this.state.buffer); // Lanes are little-endian, as browsers are.
    let at = 0;
    for (const part of parts) {
      for (const byte of part) {
        this.bytes[at++] ^= byte;
        if (at === rate) {
          permute(this.state);
          at = 0;
        }
      }
    }
    this.bytes[at] ^= 0x1f;
    this.bytes[rate - 1] ^= 0x80;
    permute(this.state);
    this.at = 0;
  }

  byte() {
    if (this.at === this.rate) {
      permute(this.state);
      this.at = 0;
    }
    return this.bytes[this.at++];
  }

  take(count) {
    return Uint8Array.from({ length: count }, () => this.byte());
  }
}

const shake128 = (...parts) => new Shake(168, ...parts);
const shake256 = (...parts) => new Shake(136, ...parts);

const ZETAS = (() => {
  const zetas = [];
  for (let i = 0; i < 256; i++) {
    let reversed = 0;
    for (let bit = 0; bit < 8; bit++) reversed |= ((i >> bit) & 1) << (7 - bit);
    let power = 1;
    for (let n = 0; n < reversed; n++) power = (power * 1753) % Q;
    zetas.push(power);
  }
  return zetas;
})();

function ntt(poly) {
  let k = 0;
  for (let length = 128; length >= 1; length >>= 1) {
    for (let start = 0; start < 256; start += 2 * length) {
      const zeta = ZETAS[++k];
      for (let j = start; j < start + length; j++) {
        const t = (zeta * poly[j + length]) % Q;
        poly[j + length] = (poly[j] - t + Q) % Q;
        poly[j] = (poly[j] + t) % Q;
      }
    }
  }
  return poly;
}

function inverseNtt(poly) {
  let k = 256;
  for (let length = 1; length < 256; length <<= 1) {
    for (let start = 0; start < 256; start += 2 * length) {
      const zeta = Q - ZETAS[--k];
      for (let j = start; j < start + length; j++) {
        const t = poly[j];
        poly[j] = (t + poly[j + length]) % Q;
        poly[j + length] = (zeta * (t - poly[j + length] + Q)) % Q;
      }
    }
  }
  return poly.map((x) => (x * 8347681) % Q);
}

// Reads 256 numbers of so many bits each, lowest bits first.
function unpack(bytes, bits) {
  const poly = new Array(256);
  let [value, held, at] = [0, 0, 0];
  for (let i = 0; i < 256; i++) {
    while (held < bits) {
      value += bytes[at++] * 2 ** held;
      held += 8;
    }
    poly[i] = value % 2 ** bits;
    value = Math.floor(value / 2 ** bits);
    held -= bits;
  }
  return poly;
}

function sampleUniform(rho, column, row) {
  const stream = shake128(rho, [column, row]);
  const poly = [];
  while (poly.length < 256) {
    const [a, b, c] = [stream.byte(), stream.byte(), stream.byte()];
    const value = a | (b << 8) | ((c & 0x7f) << 16);
    if (value < Q) poly.push(value);
  }
  return poly;
}

// The matrix of a key costs more than half of a check, and custodians sign more than once.
const MATRICES = new Map();

function matrixOf(rho) {
  const name = rho.join();
  if (!MATRICES.has(name)) {
    const row = (r) => Array.from({ length: 5 }, (_, column) => sampleUniform(rho, column, r));
    MATRICES.set(name, Array.from({ length: 6 }, (_, r) => row(r)));
  }
  return MATRICES.get(name);
}

function sampleInBall(seed) {
  const stream = shake256(seed);
  const signs = stream.take(8);
  const poly = new Array(256).fill(0);
  for (let i = 256 - 49; i < 256; i++) {
    let j = stream.byte();
    while (j > i) j = stream.byte();
    poly[i] = poly[j];
    const n = i + 49 - 256;
    poly[j] = (signs[n >> 3] >> (n & 7)) & 1 ? Q - 1 : 1;
  }
  return poly;
}

// Reads the hint: for each of six polynomials, where the high bits must be corrected; null when it
// is not in its one form.
function unpackHint(bytes) {
  const hints = [];
  let at = 0;
  for (let i = 0; i < 6; i++) {
    const poly = new Uint8Array(256);
    const end = bytes[55 + i];
    if (end < at || end > 55) return null;
    for (let first = at; at < end; at++) {
      if (at > first && bytes[at - 1] >= bytes[at]) return null;
      poly[bytes[at]] = 1;
    }
    hints.push(poly);
  }
  return bytes.subarray(at, 55).some((byte) => byte) ? null : hints;
}

function useHint(hint, value) {
  const step = 523776; // 2 gamma2
  let low = value % step;
  if (low > step / 2) low -= step;
  let high = value - low === Q - 1 ? 0 : (value - low) / step;
  if (value - low === Q - 1) low -= 1;
  if (hint) high = (high + (low > 0 ? 1 : 15)) % 16;
  return high;
}

// Whether a pure ML-DSA-65 signature with a context is by this key over this message.
function verifyMldsa65(key, message, context, signature) {
  if (key.length !== 1952 || signature.length !== 3309) return false;
  const challenge = signature.subarray(0, 48);
  const hints = unpackHint(signature.subarray(3248));
  if (hints === null) return false;
  const z = [];
  for (let i = 0; i < 5; i++) {
    const poly = unpack(signature.subarray(48 + 640 * i, 688 + 640 * i), 20);
    const centred = poly.map((x) => 524288 - x);
    if (centred.some((x) => Math.abs(x) >= 524288 - 196)) return false;
    z.push(ntt(centred.map((x) => (x + Q) % Q)));
  }
  const matrix = matrixOf(key.subarray(0, 32));
  const named = shake256(key).take(64);
  const mu = shake256(named, [0, context.length], context, message).take(64);
  const c = ntt(sampleInBall(challenge));
  const high = [];
  for (let row = 0; row < 6; row++) {
    const t1 = unpack(key.subarray(32 + 320 * row, 352 + 320 * row), 10);
    const t = ntt(t1.map((x) => (x * 8192) % Q));
    const sum = t.map((x, i) => Q - ((c[i] * x) % Q));
    for (let column = 0; column < 5; column++) {
      const a = matrix[row][column];
      for (let i = 0; i < 256; i++) sum[i] = (sum[i] + a[i] * z[column][i]) % Q;
    }
    const w = inverseNtt(sum.map((x) => x % Q));
    const found = w.map((x, i) => useHint(hints[row][i], x));
    for (let i = 0; i < 256; i += 2) high.push(found[i] | (found[i + 1] << 4));
  }
  const computed = shake256(mu, high).take(48);
  return computed.every((byte, i) => byte === challenge[i]);
}
