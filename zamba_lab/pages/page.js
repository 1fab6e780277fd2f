// What the page shows now: the text, the runs over it, the switches.
const READING = 120, WRITING = 30; // least milliseconds of computing between two drawings
const BARS = 10;
const MANY = 400; // tokens that one press of Generate writes at most

const $ = id => document.getElementById(id);
const lab = {
  tokens: [], // what the page is to read
  whole: null, // the model's run over them
  changed: null, // the run with parts off, or null if all are on
  off: new Set(), // "invocation.2", "head.2.1", "mixer.3"
  chips: [], // one for each token drawn: {token, chip, end}
  chosen: null, // the token that the views show; null: the last
  pointed: null, // the token under the pointer, which goes before
  shown: null, // what is drawn large: {attention, head} or {layer}
  toWrite: 0, // tokens still to be written
  besides: 0, // tokens that each of two continuations side by side may have
  past: [], // token lists to go back to
};
const seen = () => lab.changed || lab.whole; // the run that the views show
const now = () => Math.min(lab.pointed ?? lab.chosen ?? Infinity, seen().length - 1);

const nats = value => `${value.toFixed(2)} nats`;
const signed = value => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(value && Math.abs(value) < 0.01 ? 4 : 2);
const percent = p => (p >= 0.0995 ? `${(100 * p).toFixed(0)} %` : p >= 0.001 ? `${(100 * p).toFixed(1)} %` : "< 0.1 %");
const labelOf = token => lab.tokenizer.labels[token] ?? `<${token}>`;
const quoted = token => make("b", { textContent: labelOf(token) });

async function start() {
  const data = JSON.parse($("data").textContent), { config } = data;
  lab.model = new Model(config, await unpack($("weights").textContent, data.shapes, data.bytes));
  $("weights").remove();
  lab.tokenizer = new Tokenizer(data.tokenizer);
  lab.limit = data.limit;
  lab.attentions = config.mixer === "attention" ? config.n_layers : config.n_invocations;
  lab.stops = [config.eos_token_id, config.bos_token_id];
  $("facts").textContent = facts(data);
  lab.shown = lab.attentions ? { attention: 0, head: 0 } : { layer: 0 };
  lab.whole = new Run(lab.model);
  buildDepth();
  listen();
  theme();
  $("text").value = data.text;
  readText();
}

function facts({ parameters, bytes, config, limit }) {
  const kind = { mamba1: "Mamba-1", mamba2: "Mamba-2", attention: "transformer" }[config.mixer];
  const blocks = config.n_invocations
    ? `, with ${config.n_shared_blocks} shared attention block${config.n_shared_blocks > 1 ? "s" : ""} run at ${config.n_invocations} depths` : "";
  return `A language model of ${parameters.toLocaleString("en")} parameters in ${bytes === 4 ? "float32" : "half precision"}: ` +
    `${config.n_layers} ${kind} layers of width ${config.d_model}${blocks}. It runs in this page, on texts of up to ` +
    `${limit.toLocaleString("en")} tokens; nothing you type leaves it.`;
}

// --- work: one token at a time, with the page drawn in between ---

async function work() {
  if (lab.working) return;
  lab.working = true;
  lab.written = 0;
  const begun = performance.now();
  let until = begun + WRITING;
  while (advance()) {
    const now = performance.now();
    if (now < until) continue;
    draw();
    await new Promise(done => setTimeout(done));
    const after = performance.now(); // at least two thirds of the time are for the model
    until = after + Math.max(lab.toWrite ? WRITING : READING, 2 * (after - now));
  }
  lab.working = false;
  if (lab.written > 4) lab.speed = (1000 * lab.written) / (performance.now() - begun);
  draw();
}

// Read or write one token; false if there is nothing to do.
function advance() {
  for (const run of [lab.whole, lab.changed]) {
    if (run && run.length < lab.tokens.length) return run.read(lab.tokens[run.length]);
  }
  if (!lab.toWrite) return false;
  const token = choose(seen().rows[seen().length - 1].logits, sampling(lab.tokens.length));
  lab.ended = lab.stops.includes(token);
  if (lab.ended || lab.tokens.length >= lab.limit) return !!(lab.toWrite = 0);
  lab.tokens.push(token);
  lab.toWrite--;
  lab.written++;
  lab.textIsOld = true;
  return true;
}

function sampling(position) {
  const number = id => Math.max(0, Number($(id).value) || 0), pieces = lab.tokenizer.pieces.length;
  return { temperature: number("temperature"), topK: Math.floor(number("top-k")), pieces, draw: uniform(Number($("seed").value) || 0, position) };
}

// Go on from these tokens, keeping what both runs have read of them.
function replaceTokens(tokens) {
  let same = 0;
  while (same < tokens.length && tokens[same] === lab.tokens[same]) same++;
  lab.tokens = tokens;
  for (const run of [lab.whole, lab.changed]) run?.back(same);
  if (lab.chosen >= tokens.length) lab.chosen = null;
  lab.ended = false;
  $("beside").replaceChildren();
  work();
}

function readText() {
  const tokens = lab.tokenizer.encode($("text").value);
  lab.toWrite = 0;
  lab.cut = tokens.length > lab.limit;
  replaceTokens(tokens.slice(0, lab.limit));
}

function showText() {
  $("text").value = lab.tokenizer.decode(lab.tokens);
  $("text").scrollTop = $("text").scrollHeight;
  lab.textIsOld = false;
}

function write(count) {
  lab.past.push(lab.tokens.slice());
  lab.chosen = lab.pointed = null;
  lab.ended = false;
  if (!lab.tokens.length) lab.tokens.push(lab.stops.find(token => token !== null) ?? 0);
  lab.toWrite = count;
  work();
}

const stop = () => { lab.toWrite = 0; lab.besides = 0; draw(); };

function goBack() {
  if (!lab.past.length) return;
  lab.toWrite = 0;
  replaceTokens(lab.past.pop());
  showText();
}

// --- switches ---

function vectors() {
  const replaced = {};
  for (const key of lab.off) {
    const [part, i, head] = key.split("."), { shape, data } = lab.model.tensor(`mean.${part}.${i}`);
    const vector = head === undefined ? data : data.subarray(head * shape[1], (+head + 1) * shape[1]);
    replaced[key] = $("how").value === "mean" ? vector : new Float32Array(vector.length);
  }
  return replaced;
}

function switchParts() {
  lab.changed = lab.off.size ? new Run(lab.model, vectors()) : null;
  $("all-on").disabled = !lab.off.size;
  $("change").hidden = !lab.off.size;
  $("beside").replaceChildren();
  for (const box of document.querySelectorAll("[data-part]")) {
    box.checked = !lab.off.has(box.dataset.part);
    if (box.closest(".part > div") === null || !box.dataset.part.startsWith("head")) box.closest(".part").classList.toggle("off", !box.checked);
  }
  work();
}

// Continue the text with the whole model and with the changed one, from the same draws.
async function continueBoth() {
  const names = ["the whole model", "with the parts off"], runs = [lab.whole, lab.changed].map(run => run.fork());
  const places = names.map(name => make("pre", {}));
  $("beside").replaceChildren(...places.map((place, i) => make("div", {}, make("p", { className: "quiet", textContent: names[i] }), place)));
  const start = lab.tokens.length;
  lab.besides = Math.min(48, lab.limit - start);
  drawStatus();
  for (let step = 0; step < lab.besides && places[0].isConnected; step++) {
    runs.forEach((run, i) => {
      run.read(choose(run.rows[run.length - 1].logits, sampling(start + step)));
      places[i].textContent = lab.tokenizer.decode(run.tokens.slice(start));
    });
    await new Promise(done => setTimeout(done));
  }
  lab.besides = 0;
  drawStatus();
}
