facts => {
  const options = {responsive: true, displaylogo: false};
  // What is known of a part, under the depth diagram.
  const box = document.querySelector('.facts');
  const tell = part => {
    if (!box || !part) return;
    box.replaceChildren(Object.assign(document.createElement('b'), {textContent: part.words.split(':')[0]}));
    const list = document.createElement('ul');
    (facts[part.key] || ['Nothing more was measured.']).forEach(text => list.append(Object.assign(document.createElement('li'), {textContent: text})));
    box.append(list);
  };
  document.addEventListener('zl-part', event => tell(event.detail));
  if (box) box.textContent = 'Point at a layer or an invocation: what this atlas found of it.';

  // One of many maps, large: by a click on it, or chosen by name.
  const enlarge = (place, figure) => {
    const maps = figure.data.filter(trace => trace.type === 'heatmap');
    if (maps.length < 4) return;
    const choice = document.createElement('select'), large = document.createElement('div'), label = document.createElement('label');
    const names = figure.layout.annotations.map(note => new DOMParser().parseFromString(note.text, 'text/html').body.textContent);
    choice.append(new Option('one head, large: none', ''), ...names.map((name, i) => new Option(name, i)));
    label.className = 'choose';
    label.append(choice);
    place.after(label, large);
    choice.onchange = () => {
      if (choice.value === '') return Plotly.purge(large);
      const trace = {...maps[choice.value], showscale: true, colorbar: maps[0].colorbar};
      const axis = {type: 'category', categoryorder: 'array', tickfont: {size: 10, family: 'monospace', color: '#6b7785'}};
      const words = labels => ({tickvals: labels, ticktext: labels.map(text => text.replace(/^token \d+ «|»\u200b*$/g, '').slice(0, 14))});
      const layout = {template: figure.layout.template, height: 760, title: {text: figure.layout.annotations[choice.value].text}, margin: {t: 60},
        xaxis: {...axis, ...words(trace.x), categoryarray: trace.x, tickangle: -90, constrain: 'domain'},
        yaxis: {...axis, ...words(trace.y), categoryarray: trace.y, autorange: 'reversed', scaleanchor: 'x', constrain: 'domain'}};
      Plotly.newPlot(large, [trace], layout, options);
    };
    place.on('plotly_click', event => { choice.value = maps.indexOf(figure.data[event.points[0].curveNumber]); choice.onchange() });
  };
  const draw = place => {
    const figure = JSON.parse(place.querySelector('script').textContent);
    place.replaceChildren();
    return Plotly.newPlot(place, figure.data, figure.layout, options).then(() => enlarge(place, figure));
  };
  Promise.all([...document.querySelectorAll('.figure')].map(draw)).then(() => { document.body.dataset.drawn = 'all' });
}
