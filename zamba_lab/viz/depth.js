(root, {parts, edges, tokens, norms, foot, tall, contexts, last}) => {
  const all = query => [...root.querySelectorAll(query)], one = query => root.querySelector(query);
  const make = (name, text, more) => Object.assign(document.createElement(name), {textContent: text ?? ''}, more ?? {});
  const said = one('.zl-said'), controls = one('.zl-controls'), row = one('.zl-tokens');
  const count = bytes => bytes < 1e4 ? bytes.toLocaleString('en') + ' bytes'
    : bytes < 1e7 ? (bytes / 1e3).toFixed(0) + ' kB' : bytes < 1e9 ? (bytes / 1e6).toFixed(1) + ' MB' : (bytes / 1e9).toFixed(2) + ' GB';
  const peak = Math.max(0, ...Object.values(norms).flat().filter(Number.isFinite));
  let token = tokens.length - 1, step = last + 1, timer = null, pointed = null, context = 0;

  // What decoding carries after so many tokens, each bar as high as its part's bytes.
  const bytes = part => part.fixed + part.token * context;
  const carry = power => {
    context = 2 ** power;
    const sum = parts.reduce((total, part) => total + bytes(part), 0);
    const kv = parts.reduce((total, part) => total + part.token * context, 0);
    const columns = {};
    parts.forEach(part => { columns[part.x] = (columns[part.x] || 0) + bytes(part) });
    const highest = Math.max(1, ...Object.values(columns));
    all('.zl-bar').forEach(bar => {
      const own = bytes(parts[bar.dataset.bar]), twins = parts.filter(part => part.x === parts[bar.dataset.bar].x);
      const below = parts[bar.dataset.bar].block === null ? 0 : bytes(twins[0]);  // keys and values stand on the state
      bar.setAttribute('height', tall * own / highest);
      bar.setAttribute('y', foot - tall * (own + below) / highest);
    });
    label.textContent = `after ${context.toLocaleString('en')} tokens ${count(sum)}: states (grey) ${count(sum - kv)}, keys and values ${count(kv)}`;
  };
  const slider = make('input', '', {type: 'range', min: contexts[0], max: contexts[2], value: contexts[1], step: 1});
  slider.setAttribute('aria-label', 'tokens of context');
  slider.style.width = '140px';
  const label = make('span');
  slider.oninput = () => { carry(+slider.value); say() };
  controls.append(slider, label);

  // At one token: arrows as wide as what flows along them.
  const value = point => (norms[point] || [])[token];
  const flow = () => {
    all('.zl-edge').forEach(line => {
      const edge = edges[line.dataset.edge], norm = value(edge.point);
      if (tokens.length && peak) line.style.strokeWidth = Number.isFinite(norm) ? 0.6 + 8 * norm / peak : 1;
      line.classList.toggle('zl-dim', edge.stage > step);
    });
    all('.zl-part').forEach(part => part.classList.toggle('zl-dim', parts[part.dataset.part].stage > step));
    [...row.children].forEach((chip, i) => { chip.classList.toggle('zl-now', i === token); chip.setAttribute('aria-selected', i === token) });
    say();
  };
  const number = (name, point) => Number.isFinite(value(point)) ? `${name} ${value(point).toPrecision(3)}` : null;
  const say = () => {
    if (pointed !== null) {
      const part = parts[pointed], depth = part.stage - 1;
      const flows = tokens.length ? (part.block === null
        ? [number('the mixer adds', `layers.${depth}.mamba.out`), number('the stream after it', `layers.${depth}.resid_out`)]
        : [number('attention', `layers.${depth}.shared.attn_out`), number('MLP', `layers.${depth}.shared.mlp_out`),
           number('link', `layers.${depth}.shared.link_out`)]).filter(word => word) : [];
      said.textContent = part.words + `; carries ${count(bytes(part))} here.` + (flows.length ? ` RMS at token ${token}: ${flows.join(', ')}.` : '');
    } else if (tokens.length && peak) {
      said.textContent = `Token ${token} «${tokens[token]}»: an arrow is as wide as the root mean square of what flows along it (the widest of all tokens: ${peak.toPrecision(3)}). `
        + (step > last ? '' : step ? `Up to depth ${step - 1}. ` : 'The embeddings. ') + 'Left and right: the token; up and down: the depth; space: play.';
    } else said.textContent = 'Point at a part, or reach it by the tab key: its shapes, and every invocation of its block.';
  };

  const point = at => {
    pointed = at;
    const block = at === null ? null : parts[at].block;
    all('.zl-part, .zl-edge').forEach(element => {
      const other = element.dataset.part !== undefined ? parts[element.dataset.part] : edges[element.dataset.edge];
      element.classList.toggle('zl-lit', block !== null && other.block === block);
    });
    say();
    root.dispatchEvent(new CustomEvent('zl-part', {detail: at === null ? null : parts[at], bubbles: true}));
  };
  all('.zl-part').forEach(element => {
    const at = +element.dataset.part;
    element.onmouseenter = element.onfocus = () => point(at);
    element.onmouseleave = element.onblur = () => point(null);
  });

  const stop = () => { clearInterval(timer); timer = null; button.textContent = '▶ play' };
  const advance = () => {
    if (!root.isConnected) return stop();
    if (step <= last) step += 1;
    else if (token < tokens.length - 1) { token += 1; step = 0 } else return stop();
    flow();
  };
  const play = () => {
    if (timer) return stop();
    if (token === tokens.length - 1 && step > last) { token = 0; step = 0 } else if (step > last) step = 0;
    timer = setInterval(advance, 260);
    button.textContent = '❚❚ stop';
    flow();
  };
  const button = make('button', '▶ play', {onclick: play});
  if (tokens.length) {
    controls.prepend(button);
    row.tabIndex = 0;
    row.setAttribute('role', 'listbox');
    row.setAttribute('aria-label', 'tokens');
    tokens.forEach((text, i) => row.append(make('span', text.length > 40 ? text.slice(0, 39) + '…' : text || '∅',
      {title: `token ${i} «${text}»`, onclick: () => { token = i; step = last + 1; flow() }})));
    [...row.children].forEach(chip => chip.setAttribute('role', 'option'));
    row.onkeydown = event => {
      const move = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
      if (event.key === ' ') play();
      else if (move) {
        token = Math.min(tokens.length - 1, Math.max(0, token + move[0]));
        step = Math.min(last + 1, Math.max(0, step + move[1]));
        flow();
      } else return;
      event.preventDefault();
      event.stopPropagation();
    };
  }
  carry(+slider.value);
  flow();
}
