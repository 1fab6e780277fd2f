// What happens on a key, a click, or under the pointer. The last script: it starts the page.

function point(t) {
  lab.pointed = t;
  look();
}

function listen() {
  $("text").addEventListener("input", readText);
  $("step").addEventListener("click", () => write(1));
  $("generate").addEventListener("click", () => write(MANY));
  $("stop").addEventListener("click", stop);
  $("back").addEventListener("click", goBack);
  $("both").addEventListener("click", continueBoth);
  $("how").addEventListener("change", () => lab.off.size && switchParts());
  $("all-on").addEventListener("click", () => { lab.off.clear(); switchParts(); });
  $("help").addEventListener("click", () => $("keys").showModal());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { theme(); draw(); });
  document.addEventListener("keydown", onKey);
  const chips = $("chips"), at = event => event.target.closest("[data-at]")?.dataset.at;
  chips.addEventListener("pointerover", event => at(event) && point(+at(event)));
  chips.addEventListener("pointerleave", () => point(null));
  chips.addEventListener("click", event => { if (at(event)) { lab.chosen = +at(event); point(null); } });
  chips.addEventListener("keydown", event => {
    const move = { ArrowLeft: now() - 1, ArrowRight: now() + 1, Home: 0, End: lab.tokens.length - 1 }[event.key];
    if (move === undefined) return;
    event.preventDefault();
    lab.chosen = Math.max(0, Math.min(move, lab.tokens.length - 1));
    point(null);
    chips.querySelector(".chosen")?.focus();
  });
  $("big").addEventListener("pointermove", onMap);
  $("big").addEventListener("pointerleave", () => { $("big").lastChild.style.display = "none"; point(null); });
  $("big").addEventListener("click", () => { lab.chosen = lab.pointed ?? lab.chosen; });
}

// Under the pointer in the large map: its row is the token that reads, or its column the token after which the state is.
function onMap(event) {
  const box = $("big").getBoundingClientRect(), { layer } = lab.shown, length = seen().length;
  const bin = layer === undefined ? binOf(length, LARGE) : 1, width = Math.ceil(length / bin);
  const height = layer === undefined ? width : lab.model.config.ssm_heads;
  const x = Math.min(width - 1, Math.floor((width * (event.clientX - box.left)) / box.width));
  const y = Math.min(height - 1, Math.floor((height * (event.clientY - box.top)) / box.height));
  if (!length || x < 0 || y < 0) return;
  point(layer === undefined ? Math.min(length - 1, y * bin) : x);
  frame($("big").lastChild, x, y, width, height);
  $("readout").replaceChildren(...largeReadout(now(), [layer === undefined ? x * bin : x, y]));
}

function onKey(event) {
  const typing = event.target.matches("textarea, input:not([type=checkbox]), select");
  const command = event.ctrlKey || event.metaKey ? { Enter: "generate" }[event.key]
    : event.altKey ? { Enter: "step", Backspace: "back" }[event.key]
    : typing || event.shiftKey && event.key !== "?" ? { Escape: "stop" }[event.key]
    : { Escape: "stop", g: "generate", s: "step", b: "back", "?": "help" }[event.key];
  if (!command || $("keys").open) return;
  event.preventDefault();
  if (!$(command).disabled) $(command).click();
}

start();
