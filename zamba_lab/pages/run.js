// A model at work: a run over a text, the choice of the next token, and the weights out of the page.

// A text as the model reads it: the tokens so far, a row of what was seen at each, and what decoding carries.
class Run {
  // off: "invocation.2", "head.2.1" or "mixer.3" -> the vector that stands in its place
  constructor(model, off = {}) {
    Object.assign(this, { model, off, tokens: [], rows: [], kept: new Map() });
    const { n_layers, conv_state, conv_dim, d_inner, d_state, mixer } = model.config;
    const size = mixer === "attention" ? [0, 0] : [conv_state * conv_dim, d_inner * d_state];
    this.memory = Array.from({ length: n_layers }, () => ({
      conv: new Float32Array(size[0]), ssm: new Float32Array(size[1]), keys: [], values: [],
    }));
    this.keep();
  }

  get length() {
    return this.tokens.length;
  }

  read(token) {
    const { n_layers, ssm_heads, mixer } = this.model.config, heads = mixer === "attention" ? 0 : ssm_heads;
    const perHead = () => Array.from({ length: n_layers }, () => new Float32Array(heads));
    const row = { attention: [], norms: perHead(), halfLives: perHead(), logits: null };
    this.model.read(token, this.length, this.memory, this.off, row);
    this.tokens.push(token);
    this.rows.push(row);
    this.keep();
    return row;
  }

  // States are kept after every 16th token and after the last eight: so typing at the end costs a token or two.
  keep() {
    this.kept.set(this.length, this.memory.map(({ conv, ssm }) => [conv.slice(), ssm.slice()]));
    if ((this.length - 8) % 16) this.kept.delete(this.length - 8);
  }

  // Go back to at most `length` tokens: to the last kept state before.
  back(length) {
    if (length >= this.length) return;
    const at = Math.max(...[...this.kept.keys()].filter(kept => kept <= length));
    for (const kept of this.kept.keys()) if (kept > at) this.kept.delete(kept);
    this.tokens.length = this.rows.length = at;
    this.kept.get(at).forEach(([conv, ssm], i) => {
      this.memory[i].conv.set(conv);
      this.memory[i].ssm.set(ssm);
      this.memory[i].keys.length = this.memory[i].values.length = Math.min(at, this.memory[i].keys.length);
    });
  }

  // Another run that goes on from here by itself.
  fork() {
    const copy = Object.assign(Object.create(Run.prototype), this, { tokens: [...this.tokens], rows: [...this.rows], kept: new Map() });
    copy.memory = this.memory.map(({ conv, ssm, keys, values }) => ({ conv: conv.slice(), ssm: ssm.slice(), keys: [...keys], values: [...values] }));
    return copy;
  }

  // -log p of token t given those before it, in nats; of the first there is none.
  loss(t) {
    if (t < 1 || t >= this.length) return NaN;
    return logSumExp(this.rows[t - 1].logits) - this.rows[t - 1].logits[this.tokens[t]];
  }
}

function logSumExp(logits) {
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  return most + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - most), 0));
}

// A number in [0, 1) of a seed and a position alone: the same text goes on in the same way, by single steps or in one go. (murmur3's mixer)
function uniform(seed, position) {
  let x = (Math.imul(seed | 0, 0x9e3779b1) + Math.imul(position + 1, 0x85ebca77)) | 0;
  for (let round = 0; round < 2; round++) {
    x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
    x ^= x >>> 16;
  }
  return (x >>> 0) / 2 ** 32;
}

// generation.py: the likeliest token at temperature 0; else one of the k likeliest (0: of all), `draw` in [0, 1) says which.
// Rows of the vocabulary without a token, from `pieces` on, are never chosen.
function choose(logits, { temperature, topK, pieces, draw }) {
  const order = Array.from({ length: pieces }, (_, i) => i).sort((a, b) => logits[b] - logits[a]);
  if (temperature <= 0) return order[0];
  const among = order.slice(0, topK || pieces), probs = softmax(among.map(i => logits[i] / temperature));
  let left = draw;
  return among.find((_, i) => (left -= probs[i]) < 0) ?? among[0];
}

// The n likeliest tokens with their probabilities.
function likeliest(logits, n, pieces) {
  const total = logSumExp(logits);
  return Array.from({ length: pieces }, (_, i) => i).sort((a, b) => logits[b] - logits[a]).slice(0, n)
    .map(token => ({ token, p: Math.exp(logits[token] - total) }));
}

const halfToFloat = bits => {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const size = exponent === 31 ? (fraction ? NaN : Infinity) : exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024);
  return bits >> 15 ? -size : size;
};

// The tensors of a page: base64 of zlib of the numbers' first bytes, then their second ones, and so on (pages/packing.py).
async function unpack(text, shapes, bytes) {
  const letters = atob(text), packed = new Uint8Array(letters.length);
  for (let i = 0; i < packed.length; i++) packed[i] = letters.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer()), count = planes.length / bytes;
  const whole = new Uint8Array(planes.length);
  for (let b = 0; b < bytes; b++) for (let i = 0; i < count; i++) whole[i * bytes + b] = planes[b * count + i];
  const numbers = bytes === 4 ? new Float32Array(whole.buffer) : Float32Array.from(new Uint16Array(whole.buffer), halfToFloat);
  const tensors = new Map();
  let at = 0;
  for (const [name, shape] of shapes) {
    const size = shape.reduce((a, b) => a * b, 1);
    tensors.set(name, { shape, data: numbers.subarray(at, at + size) });
    at += size;
  }
  return tensors;
}
