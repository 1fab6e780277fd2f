// How the page shows it: what is built once, and what is drawn anew.

// --- building what stays ---

const blockColor = k => `block-${(lab.model.config.blocks_by_invocation[k] ?? 0) % 6}`;
const blockName = b => (b < 26 ? String.fromCharCode(65 + b) : String(b));

function switchFor(part, label, about) {
  const box = make("input", { type: "checkbox", checked: true });
  box.setAttribute("role", "switch");
  box.setAttribute("aria-label", `${about}: on`);
  box.dataset.part = part;
  box.addEventListener("change", () => {
    lab.off[box.checked ? "delete" : "add"](part);
    switchParts();
  });
  return make("label", { className: "switch" }, box, label);
}

function mapButton(className, about, shown) {
  const button = make("button", { type: "button", className: `map ${className}`, title: about }, make("canvas"), make("i", { className: shown.layer === undefined ? "row" : "column-mark" }));
  button.setAttribute("aria-label", `${about}: draw it large`);
  button.addEventListener("click", () => { lab.shown = shown; draw(); $("large").scrollIntoView({ block: "nearest" }); });
  lab.maps.push({ button, ...shown });
  return button;
}

function attentionParts(k, about) {
  const heads = make("div", { className: "heads" });
  for (let h = 0; h < lab.model.config.attn_heads; h++) {
    heads.append(make("div", {}, mapButton("", `${about}, head ${h}`, { attention: k, head: h }), switchFor(`head.${k}.${h}`, `${h}`, `head ${h} of ${about}`)));
  }
  return heads;
}

function buildDepth() {
  const { n_layers, mixer, hybrid_layers, blocks_by_invocation } = lab.model.config, rows = [];
  Object.assign(lab, { maps: [], lives: [] });
  const row = (kind, color, ...children) => {
    const element = make("div", { className: `part ${kind}` }, ...children);
    element.style.setProperty("--color", `var(--${color})`);
    rows.push(element);
  };
  row("end", "quiet", make("div", { textContent: "tokens become vectors, x0" }));
  for (let i = 0; i < n_layers; i++) {
    const k = hybrid_layers.indexOf(i);
    if (mixer === "attention") {
      row("invocation", "block-0", make("div", {}, `Layer ${i}`, make("span", { className: "about", textContent: "attention, MLP" })), attentionParts(i, `layer ${i}`));
      continue;
    }
    if (k >= 0) {
      const name = blockName(blocks_by_invocation[k]), label = make("div", {}, switchFor(`invocation.${k}`, `Invocation ${k}`, `invocation ${k}`));
      label.append(make("span", { className: "about", textContent: `block ${name}, attention` }));
      row("invocation", blockColor(k), label, attentionParts(k, `invocation ${k} (block ${name})`));
    }
    const life = make("div", { className: "life" });
    lab.lives.push(life);
    row("layer", "state", switchFor(`mixer.${i}`, `Layer ${i}`, `layer ${i}`), mapButton("strip", `the state of layer ${i}`, { layer: i }), life);
  }
  row("end", "quiet", make("div", { textContent: "norm and head: the next token's probabilities" }));
  if (mixer !== "attention") {
    const axis = make("div", { className: "axis" }, ...[1, 10, 100, LONGEST].map(tokens => make("span", { textContent: tokens < 1000 ? tokens : `${tokens / 1000}k` })));
    const head = make("div", { className: "part head" }, make("span"), make("span", { className: "about", textContent: "norm of the state, token by token" }),
      make("div", {}, make("span", { className: "about", textContent: "half-life, tokens" }), axis));
    rows.unshift(head);
  }
  $("depth").replaceChildren(...rows);
  const inks = [...new Set(Array.from({ length: lab.attentions }, (_, k) => blockColor(k)))].flatMap(name => scale(name));
  if (lab.attentions) $("model-legend").append("attention, against an even weight: ×1", ...inks, `×${EVEN_TIMES}. `);
  if (mixer !== "attention") $("model-legend").append("state: 0", scale("state"), "its largest");
}

function scale(name, two = false) {
  const box = make("span", { className: two ? "scale two" : "scale" });
  box.style.setProperty("--to", `var(--${name})`);
  return box;
}

function theme() {
  const names = ["state", ...Array.from({ length: 6 }, (_, b) => `block-${b}`)];
  lab.ramps = Object.fromEntries(names.map(name => [name, ramp(name)]));
  lab.drawn = null;
}

// --- drawing ---

// Everything that depends on what was read, then what depends on the token looked at.
function draw() {
  if (lab.textIsOld) showText();
  drawChips();
  const rows = seen().rows, state = `${lab.changed ? [...lab.off, $("how").value] : ""} ${seen().tokens.join()}`;
  if (state !== lab.drawn) {
    for (const map of lab.maps) {
      const canvas = map.button.firstChild;
      if (map.layer === undefined) paintAttention(canvas, rows, map.attention, map.head, lab.ramps[blockColor(map.attention)], SMALL);
      else paintStrip(canvas, rows, map.layer, lab.ramps.state);
    }
    if (lab.changed && !lab.working) drawWorth();
  }
  lab.drawn = lab.working ? null : state;
  drawLarge();
  look();
  drawStatus();
}

function drawStatus() {
  const { length } = lab.tokens, losses = Array.from({ length: seen().length }, (_, t) => seen().loss(t)).filter(Number.isFinite);
  const mean = losses.reduce((a, b) => a + b, 0) / losses.length, busy = Math.min(lab.whole.length, seen().length) < length;
  const parts = [`${length} token${length === 1 ? "" : "s"}`];
  if (busy) parts.push(`reading, ${seen().length} of ${length}`);
  else if (losses.length) parts.push(`${nats(mean)} a token`);
  if (lab.cut || length >= lab.limit) parts.push(`the page reads ${lab.limit.toLocaleString("en")} tokens and stops there`);
  if (lab.ended) parts.push("the model ended the text");
  if (lab.speed) parts.push(`wrote ${lab.speed.toPrecision(2)} tokens a second on this device`);
  $("status").textContent = parts.join(" · ");
  $("stop").disabled = !lab.toWrite && !lab.besides;
  $("generate").disabled = $("step").disabled = !!lab.toWrite || length >= lab.limit;
  $("back").disabled = !lab.past.length;
}

function drawChips() {
  const box = $("chips");
  let same = 0;
  while (same < lab.chips.length && lab.chips[same].token === lab.tokens[same]) same++;
  for (const { chip, end } of lab.chips.splice(same)) [chip, end].forEach(node => node.remove());
  for (let t = same; t < lab.tokens.length; t++) {
    const label = labelOf(lab.tokens[t]), chip = make("span", {}, ...shaded(label)), end = make("span", { textContent: label.endsWith("⏎") ? "\n" : "\u200b", ariaHidden: "true" });
    chip.setAttribute("role", "option");
    chip.dataset.at = t;
    box.append(chip, end);
    lab.chips.push({ token: lab.tokens[t], chip, end });
  }
  const most = Math.log(lab.model.config.vocab_size), both = lab.changed && lab.whole;
  for (const [t, drawn] of lab.chips.entries()) {
    const state = t < seen().length && seen();
    if (drawn.state === state) continue; // its loss is on it already
    const loss = seen().loss(t), change = both ? loss - both.loss(t) : 0;
    drawn.state = state;
    drawn.chip.className = !state ? "unread" : both ? (change > 0 ? "dearer" : "cheaper") : "";
    drawn.chip.style.setProperty("--amount", Math.min(1, both ? Math.abs(change) : loss / most) || 0);
  }
  if (lab.toWrite) box.scrollTop = box.scrollHeight;
  if (!lab.legend || lab.legend !== !!both + 1) {
    lab.legend = !!both + 1;
    $("loss-legend").replaceChildren(...(both
      ? ["below a token, with the parts off: 1 nat less", scale("dearer", true), "1 nat more loss than the whole model"]
      : ["below a token, its loss: 0", scale("loss"), `${most.toFixed(1)} nats, as by guessing among ${lab.model.config.vocab_size.toLocaleString("en")}`]));
  }
}

// A label with its stand-ins for white space in grey, and with the line ends within it.
const shaded = label => label.split(/([·⏎⇥]+)/).filter(Boolean)
  .map(part => (/^[·⏎⇥]/.test(part) ? make("span", { className: "space", textContent: part.replace(/⏎(?!$)/g, "⏎\n") }) : part));

// What follows the token looked at: bars, rows of maps, half-lives, shades.
function look() {
  const run = seen(), t = now(), row = run.rows[t];
  const { attention, head } = lab.shown, read = row && attention !== undefined ? row.attention[attention][head] : [];
  $("chips").style.setProperty("--reader", `var(--${attention === undefined ? "state" : blockColor(attention)})`);
  lab.chips.forEach(({ chip }, s) => {
    chip.classList.toggle("chosen", s === t);
    chip.setAttribute("aria-selected", s === t);
    chip.tabIndex = s === t ? 0 : -1;
    chip.style.setProperty("--read", s < read.length ? aboveEven(read[s], read.length) : 0);
  });
  for (const { button, layer } of [...lab.maps, { button: $("big"), layer: lab.shown.layer }]) {
    const mark = button.querySelector(".row, .column-mark"), bin = binOf(run.length, button === $("big") ? LARGE : SMALL);
    const cells = Math.ceil(run.length / bin);
    if (button === $("big")) mark.className = layer === undefined ? "row" : "column-mark";
    mark.removeAttribute("style");
    if (layer === undefined) frame(mark, null, Math.floor(t / bin), cells, cells);
    else frame(mark, t, null, run.length, 1);
  }
  lab.lives.forEach((life, i) => {
    const lives = row ? [...row.halfLives[i]] : [];
    life.title = row ? `half-lives of the heads of layer ${i}, in tokens: ${lives.map(value => value.toPrecision(3)).join(", ")}` : "";
    while (life.children.length > lives.length) life.lastChild.remove();
    lives.forEach((value, h) => { (life.children[h] ?? life.appendChild(make("i"))).style.left = `${lifeAt(value)}%`; });
  });
  drawToken(t);
  drawBars(t);
  $("readout").replaceChildren(...largeReadout(t, null));
}

function drawToken(t) {
  const run = seen(), parts = [];
  if (t >= 0) {
    parts.push(`token ${t} `, quoted(lab.tokens[t]));
    if (t > 0) {
      const loss = run.loss(t);
      parts.push(`, probability ${percent(Math.exp(-loss))}, loss ${nats(loss)}`);
      if (lab.changed && t < lab.whole.length) parts.push(` (${signed(loss - lab.whole.loss(t))} by the parts that are off)`);
    } else parts.push(", the first: nothing predicts it");
  }
  $("token").replaceChildren(...parts);
}

function drawBars(t) {
  const run = seen(), bars = [], row = run.rows[t];
  $("after").replaceChildren(...(row ? ["after ", quoted(lab.tokens[t]), t + 1 < lab.tokens.length ? ": ▸ is what came" : ": choose one to write it"] : ["Write something, or press Step."]));
  if (row) {
    const { pieces } = lab.tokenizer, came = lab.tokens[t + 1], listed = likeliest(row.logits, BARS, pieces.length), total = logSumExp(row.logits);
    if (came !== undefined && !listed.some(({ token }) => token === came)) listed.push({ token: came, p: Math.exp(row.logits[came] - total) });
    const before = lab.changed && lab.whole.rows[t]?.logits, beforeTotal = before && logSumExp(before);
    for (const { token, p } of listed) bars.push(bar(t, token, p, before && Math.exp(before[token] - beforeTotal), token === came));
  }
  $("bars").replaceChildren(...bars);
}

function bar(t, token, p, before, came) {
  const share = make("span", { className: "share", textContent: percent(p) }), track = make("span", { className: "bar" });
  if (before !== null && before !== undefined) {
    track.append(make("i", { className: "before" }));
    track.lastChild.style.width = `${100 * before}%`;
  }
  track.append(make("i"));
  track.lastChild.style.width = `${100 * p}%`;
  const label = labelOf(token);
  const button = make("button", { type: "button", className: came ? "came" : "", title: before === null || before === undefined ? "" : `whole model: ${percent(before)} (grey)` },
    make("span", { className: "name", textContent: came ? `▸ ${label}` : label }), track, share);
  button.setAttribute("aria-label", `${label}, ${percent(p)}: go on with it here`);
  button.addEventListener("click", () => {
    lab.past.push(lab.tokens.slice());
    lab.toWrite = 0;
    lab.chosen = lab.pointed = null;
    replaceTokens([...lab.tokens.slice(0, t + 1), token]);
    showText();
  });
  return button;
}

function drawLarge() {
  const { attention, head, layer } = lab.shown, rows = seen().rows, big = $("big"), canvas = big.firstChild;
  const { config } = lab.model, legend = $("large-legend");
  big.classList.toggle("square", layer === undefined);
  for (const map of lab.maps) map.button.classList.toggle("shown", map.attention === attention && map.head === head && map.layer === layer);
  if (layer === undefined) {
    big.style.height = "";
    const whose = config.mixer === "attention" ? `Layer ${attention}` : `Invocation ${attention} (block ${blockName(config.blocks_by_invocation[attention])})`;
    $("large-title").textContent = `${whose}, head ${head}: who reads whom`;
    legend.replaceChildren("a row reads, a column is read; weight against an even one: ×1", scale(blockColor(attention)), `×${EVEN_TIMES}`);
    paintAttention(canvas, rows, attention, head, lab.ramps[blockColor(attention)], LARGE);
  } else {
    big.style.height = `${Math.min(360, 26 * config.ssm_heads)}px`;
    $("large-title").textContent = `Layer ${layer}: the state of each head`;
    legend.replaceChildren("a row is a head, a column a token; norm, from 0", scale("state"), "to the head's own largest");
    paintHeads(canvas, rows, layer, lab.ramps.state);
  }
}

// What the large map says at the token looked at, or in one cell of it: [x, y].
function largeReadout(t, cell) {
  const run = seen(), { attention, head, layer } = lab.shown, row = run.rows[t];
  if (!row) return [];
  if (layer !== undefined) {
    const say = h => [`head ${h}: norm ${row.norms[layer][h].toPrecision(3)}, half-life ${row.halfLives[layer][h].toPrecision(3)} tokens`];
    return ["after token ", `${t} `, quoted(lab.tokens[t]), ": ", ...(cell ? say(cell[1]) : [`norm ${layerNorm(row, layer).toPrecision(3)} over all heads`])];
  }
  const weights = row.attention[attention][head];
  const one = s => [quoted(lab.tokens[s]), ` ${percent(weights[s])} (×${(weights[s] * weights.length).toPrecision(2)})`];
  const most = Array.from(weights.keys()).sort((a, b) => weights[b] - weights[a]).slice(0, 3);
  const read = cell ? (cell[0] <= t ? [`token ${cell[0]} `, ...one(cell[0])] : ["nothing that comes later"]) : most.flatMap((s, i) => (i ? [", ", ...one(s)] : one(s)));
  return [`token ${t} `, quoted(lab.tokens[t]), cell ? " reads " : " reads most: ", ...read];
}

// Losses with parts off beside the whole model's: over all tokens, and over words that stood in the text before.
function drawWorth() {
  const { whole, changed } = lab, again = repeated(), groups = [["all tokens", () => true], ["in words that came before", t => again[t]], ["in all others", t => !again[t]]];
  const mean = (run, at) => at.reduce((sum, t) => sum + run.loss(t), 0) / at.length;
  const line = ([name, belongs]) => {
    const at = Array.from({ length: changed.length }, (_, t) => t).filter(t => t > 0 && belongs(t)), cell = text => make("td", { className: "number", textContent: text });
    const numbers = at.length ? [mean(whole, at).toFixed(2), mean(changed, at).toFixed(2), signed(mean(changed, at) - mean(whole, at))] : ["", "", ""];
    return make("tr", {}, make("td", { textContent: name }), cell(at.length), ...numbers.map(cell));
  };
  const heads = ["nats a token", "n", "whole", "parts off", "change"].map((textContent, i) => make("th", { textContent, className: i ? "number" : "" }));
  const parts = [...lab.off].map(key => key.replace("head.", "head ").replace(/^head (\d+)\.(\d+)/, "head $2 of attention $1").replace(".", " ").replace("mixer", "layer"));
  const how = $("how").value === "mean" ? "at the mean" : "zeroed";
  $("worth").replaceChildren(make("p", { className: "quiet", textContent: `${how}: ${parts.join(", ")}` }),
    make("table", {}, make("tr", {}, ...heads), ...groups.map(line)));
}

// Which tokens stand in a word, of three or more Latin letters, digits or _, that stood in the text before.
function repeated() {
  const pieces = lab.tokens.map(token => (lab.tokenizer.specials.has(token) ? "\0" : lab.tokenizer.pieces[token] || "\0")), before = new Set(), marks = [];
  let end = 0;
  const ends = pieces.map(piece => (end += piece.length));
  for (const { 0: word, index } of pieces.join("").matchAll(/[A-Za-z_]\w{2,}/g)) {
    if (before.has(word)) ends.forEach((right, t) => { if (right > index && right - pieces[t].length < index + word.length) marks[t] = true; });
    before.add(word);
  }
  return marks;
}
