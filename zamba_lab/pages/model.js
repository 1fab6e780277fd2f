// The forward pass, one token at a time: what zamba_lab/model.py, blocks/ and ops/ compute, for one text.
//
// Tensors keep the names they have in Python (`model.state_dict()`). Weights and states are float32, sums are float64. What each
// part does is written in Python, where it is tested; the comments here only say which file a function follows.

const silu = x => x / (1 + Math.exp(-x));
const softplus = x => (x > 20 ? x : Math.log1p(Math.exp(x)));

// Abramowitz & Stegun 7.1.26: the error is below 2e-7.
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - p * Math.exp(-x * x));
}

const ACTIVATION = {
  gelu: x => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  gelu_tanh: x => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  silu,
  relu: x => Math.max(0, x),
};

// y = W x + bias, four rows at a time: a number of x is read once for all of them.
function linear(weight, x, bias = null) {
  const [rows, width] = weight.shape, w = weight.data, wide = new Float64Array(x), y = new Float32Array(rows);
  let i = 0;
  for (; i + 3 < rows; i += 4) {
    const first = i * width, second = first + width, third = second + width, fourth = third + width;
    let a = 0, b = 0, c = 0, d = 0;
    for (let j = 0; j < width; j++) {
      const value = wide[j];
      a += w[first + j] * value;
      b += w[second + j] * value;
      c += w[third + j] * value;
      d += w[fourth + j] * value;
    }
    y[i] = a;
    y[i + 1] = b;
    y[i + 2] = c;
    y[i + 3] = d;
  }
  for (; i < rows; i++) for (let j = 0; j < width; j++) y[i] += w[i * width + j] * wide[j];
  return bias ? plus(y, bias.data) : y;
}

// ops/norm.py
function rmsNorm(x, weight, eps, groups = 1) {
  const y = new Float32Array(x.length), width = x.length / groups;
  for (let start = 0; start < x.length; start += width) {
    let squares = 0;
    for (let i = start; i < start + width; i++) squares += x[i] * x[i];
    const scale = 1 / Math.sqrt(squares / width + eps);
    for (let i = start; i < start + width; i++) y[i] = x[i] * scale * weight.data[i];
  }
  return y;
}

function plus(a, b) {
  return a.map((value, i) => value + b[i]);
}

function softmax(scores) {
  const most = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const weights = scores.map(score => Math.exp(score - most)), sum = weights.reduce((a, b) => a + b, 0);
  return weights.map(weight => weight / sum);
}

class Model {
  // config: the fields of ZambaConfig and what follows from them. tensors: name -> {shape, data}.
  constructor(config, tensors) {
    Object.assign(this, { config, tensors });
    this.rates = Array.from({ length: config.n_layers }, (_, i) => this.tensor(`layers.${i}.mamba.A_log`)?.data.map(Math.exp)); // -A
    this.blockAt = new Map(config.hybrid_layers.map((depth, k) => [depth, k]));
  }

  tensor(name) {
    return this.tensors.get(name);
  }

  linear(name, x) {
    return linear(this.tensor(`${name}.weight`), x, this.tensor(`${name}.bias`));
  }

  norm(name, x) {
    return rmsNorm(x, this.tensor(`${name}.weight`), this.config.norm_eps);
  }

  // blocks/lora.py: the shared matrix, and what this invocation's adapter of that name adds
  adapted(name, adapter, x) {
    const y = this.linear(name, x);
    return this.tensor(`${adapter}.down.weight`) ? plus(y, this.linear(`${adapter}.up`, this.linear(`${adapter}.down`, x))) : y;
  }

  // model.py, walk and logits: one token through the depth. Fills `row`, changes `memory`.
  read(token, position, memory, off, row) {
    const { d_model, n_layers, mixer, link_into, tie_embeddings } = this.config;
    const x0 = this.tensor("embedding.weight").data.slice(token * d_model, (token + 1) * d_model);
    let x = x0;
    for (let i = 0; i < n_layers; i++) {
      if (mixer === "attention") {
        x = this.transformerLayer(i, x, position, memory[i], off, row);
        continue;
      }
      let input = x;
      if (this.blockAt.has(i)) {
        input = plus(x, this.invocation(this.blockAt.get(i), i, x, x0, position, memory[i], off, row));
        if (link_into === "stream") x = input;
      }
      const out = this[mixer](i, this.norm(`layers.${i}.norm`, input), memory[i], row);
      x = plus(x, off[`mixer.${i}`] || out);
    }
    x = this.norm("final_norm", x);
    row.logits = linear(this.tensor(tie_embeddings ? "embedding.weight" : "head.weight"), x);
  }

  // blocks/layers.py
  transformerLayer(i, x, position, memory, off, row) {
    const at = `layers.${i}`;
    x = plus(x, this.attention(`${at}.attention`, "", i, this.norm(`${at}.norm_in`, x), position, memory, off, row));
    return plus(x, this.mlp(`${at}.mlp`, "", this.norm(`${at}.norm_mid`, x)));
  }

  // blocks/shared.py
  invocation(k, depth, x, x0, position, memory, off, row) {
    const block = `shared_blocks.${this.config.blocks_by_invocation[k]}`, own = `layers.${depth}.invocation`;
    const input = this.config.concat_embedding ? Float32Array.of(...x, ...x0) : x;
    const a = this.attention(`${block}.attention`, own, k, this.norm(`${block}.norm_in`, input), position, memory, off, row);
    const m = this.mlp(`${block}.mlp`, own, this.norm(`${block}.norm_mid`, a));
    return off[`invocation.${k}`] || this.linear(`${own}.link`, m);
  }

  // blocks/mlp.py
  mlp(name, own, x) {
    const both = this.adapted(`${name}.gate_up`, `${own}.adapters.mlp`, x), width = both.length / 2;
    const act = ACTIVATION[this.config.activation];
    return this.linear(`${name}.down`, both.slice(0, width).map((gate, i) => act(gate) * both[width + i]));
  }

  // blocks/attention.py; k: which attention down the depth. row.attention[k]: of each head the weights on all tokens so far
  attention(name, own, k, u, position, memory, off, row) {
    const { attn_heads, kv_heads, head_dim: p, attn_scale } = this.config;
    const [q, key, value] = ["q", "k", "v"].map(part => this.adapted(`${name}.${part}`, `${own}.adapters.${part}`, u));
    this.rotate(q, position);
    this.rotate(key, position);
    memory.keys.push(key);
    memory.values.push(value);
    const mixed = new Float32Array(attn_heads * p), length = memory.keys.length;
    row.attention[k] = [];
    for (let h = 0; h < attn_heads; h++) {
      const at = Math.floor(h / (attn_heads / kv_heads)) * p, scores = new Float32Array(length);
      for (let s = 0; s < length; s++) {
        let sum = 0;
        for (let i = 0; i < p; i++) sum += q[h * p + i] * memory.keys[s][at + i];
        scores[s] = sum * attn_scale;
      }
      const weights = (row.attention[k][h] = softmax(scores));
      for (let s = 0; s < length; s++) for (let i = 0; i < p; i++) mixed[h * p + i] += weights[s] * memory.values[s][at + i];
      if (off[`head.${k}.${h}`]) mixed.set(off[`head.${k}.${h}`], h * p);
    }
    return this.linear(`${name}.o`, mixed);
  }

  // ops/attention.py: rotary positions, in place, in every head
  rotate(x, position) {
    const { head_dim: p, rope_theta } = this.config;
    if (rope_theta === null) return;
    for (let i = 0; i < p / 2; i++) {
      const angle = position * rope_theta ** ((-2 * i) / p), cos = Math.cos(angle), sin = Math.sin(angle);
      for (let at = i; at < x.length; at += p) {
        const first = x[at], second = x[at + p / 2];
        x[at] = first * cos - second * sin;
        x[at + p / 2] = second * cos + first * sin;
      }
    }
  }

  // ops/conv.py: silu of the causal convolution; memory.conv holds the inputs before this one
  convolve(name, x, memory) {
    const weight = this.tensor(`${name}.conv_weight`), bias = this.tensor(`${name}.conv_bias`);
    const back = this.config.conv_state, channels = x.length, y = new Float32Array(channels);
    for (let i = 0; i < channels; i++) {
      let sum = weight ? weight.data[i * (back + 1) + back] * x[i] : x[i];
      for (let j = 0; j < back; j++) sum += weight.data[i * (back + 1) + j] * memory.conv[j * channels + i];
      y[i] = silu(sum + (bias ? bias.data[i] : 0));
    }
    memory.conv.copyWithin(0, channels);
    if (back) memory.conv.set(x, (back - 1) * channels);
    return y;
  }

  // blocks/mixer.py
  stepSize(raw, bias) {
    return Math.max(softplus(raw + bias), this.config.dt_min);
  }

  // blocks/mamba2.py, ops/ssd.py. row.norms[i], row.halfLives[i]: of each head of layer i
  mamba2(i, u, memory, row) {
    const { d_inner, d_state: n, ssm_heads, headdim: p, n_groups, conv_dim, gated_norm_groups } = this.config;
    const name = `layers.${i}.mamba`, projected = this.linear(`${name}.in_proj`, u);
    const z = projected.subarray(0, d_inner), raw = projected.subarray(d_inner + conv_dim);
    const x = this.convolve(name, projected.subarray(d_inner, d_inner + conv_dim), memory);
    const B = x.subarray(d_inner, d_inner + n_groups * n), C = x.subarray(d_inner + n_groups * n);
    const [bias, D] = ["dt_bias", "D"].map(part => this.tensor(`${name}.${part}`).data), rates = this.rates[i];
    const y = new Float32Array(d_inner), state = memory.ssm;
    for (let h = 0; h < ssm_heads; h++) {
      const dt = this.stepSize(raw[h], bias[h]), rate = rates[h], decay = Math.exp(-dt * rate);
      const group = Math.floor(h / (ssm_heads / n_groups)) * n;
      let squares = 0;
      for (let c = h * p; c < (h + 1) * p; c++) {
        const write = dt * x[c];
        let sum = 0;
        for (let j = 0, at = c * n; j < n; j++, at++) {
          const value = decay * state[at] + write * B[group + j];
          state[at] = value;
          sum += value * C[group + j];
          squares += value * value;
        }
        y[c] = (sum + D[h] * x[c]) * silu(z[c]);
      }
      row.norms[i][h] = Math.sqrt(squares);
      row.halfLives[i][h] = Math.LN2 / (dt * rate);
    }
    return this.linear(`${name}.out_proj`, rmsNorm(y, this.tensor(`${name}.norm_weight`), 1e-5, gated_norm_groups));
  }

  // blocks/mamba1.py, ops/scan.py. A head has many steps and rates: its half-life is of their geometric means, as in lens/decay.py
  mamba1(i, u, memory, row) {
    const { d_inner, d_state: n, ssm_heads, headdim: p, dt_width } = this.config;
    const name = `layers.${i}.mamba`, projected = this.linear(`${name}.in_proj`, u);
    const x = this.convolve(name, projected.subarray(0, d_inner), memory), z = projected.subarray(d_inner);
    const part = name_ => this.tensor(`${name}.${name_}`), slice = (t, h) => {
      const shape = t.shape.slice(1), size = shape[0] * shape[1];
      return { shape, data: t.data.subarray(h * size, (h + 1) * size) };
    };
    const [bias, A_log, D] = ["dt_bias", "A_log", "D"].map(name_ => part(name_).data), rates = this.rates[i];
    const y = new Float32Array(d_inner), state = memory.ssm;
    for (let h = 0; h < ssm_heads; h++) {
      const low = linear(slice(part("x_proj"), h), x.subarray(h * p, (h + 1) * p));
      const B = low.subarray(dt_width, dt_width + n), C = low.subarray(dt_width + n);
      const raw = linear(slice(part("dt_proj"), h), low.subarray(0, dt_width));
      let squares = 0, logSteps = 0, logRates = 0;
      for (let q = 0, c = h * p; q < p; q++, c++) {
        const dt = this.stepSize(raw[q], bias[c]), write = dt * x[c];
        let sum = 0;
        for (let j = 0, at = c * n; j < n; j++, at++) {
          const value = Math.exp(-dt * rates[at]) * state[at] + write * B[j];
          state[at] = value;
          sum += value * C[j];
          squares += value * value;
          logRates += A_log[at] / (p * n);
        }
        logSteps += Math.log(dt) / p;
        y[c] = (sum + D[c] * x[c]) * silu(z[c]);
      }
      row.norms[i][h] = Math.sqrt(squares);
      row.halfLives[i][h] = Math.exp(Math.log(Math.LN2) - logSteps - logRates);
    }
    return this.linear(`${name}.out_proj`, y);
  }
}
