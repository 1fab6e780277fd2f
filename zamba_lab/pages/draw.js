// Maps on canvases. A cell's colour is one ink, more or less of it: so it reads on light and dark paper, in print, and to the colour-blind.

const SMALL = 56, LARGE = 256; // most rows and columns of a map; of longer texts a cell is the largest of several
const EVEN_TIMES = 16; // an attention weight so many times an even one has the full colour
const LONGEST = 1000; // tokens, the end of the half-lives' axis

// A colour of page.css as it is in the present theme: [red, green, blue].
function ink(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const color = getComputedStyle(probe).color.match(/[\d.]+/g).map(Number);
  probe.remove();
  return color;
}

// 256 pixels, from none of the ink to all of it.
function ramp(name) {
  const [red, green, blue] = ink(name), pixels = new Uint32Array(256);
  const bytes = new Uint8Array(pixels.buffer);
  for (let i = 0; i < 256; i++) bytes.set([red, green, blue, i], 4 * i);
  return pixels;
}

// amount(x, y): 0 to 1
function paint(canvas, width, height, pixels, amount) {
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  if (!width || !height) return;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height), cells = new Uint32Array(image.data.buffer);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) cells[y * width + x] = pixels[Math.round(255 * Math.min(1, Math.max(0, amount(x, y))))];
  }
  context.putImageData(image, 0, 0);
}

// How much a weight on one of `seen` tokens is above an even one, 0 to 1.
const aboveEven = (weight, seen) => Math.min(1, Math.max(0, Math.log2(weight * seen) / Math.log2(EVEN_TIMES)));

const binOf = (length, cells) => Math.ceil(length / cells) || 1;

// One head's map: a row for each token that reads, a column for each that is read.
function paintAttention(canvas, rows, k, head, pixels, cells) {
  const bin = binOf(rows.length, cells), size = Math.ceil(rows.length / bin);
  paint(canvas, size, size, pixels, (x, y) => {
    let most = 0;
    for (let t = y * bin; t < Math.min(rows.length, (y + 1) * bin); t++) {
      const weights = rows[t].attention[k][head];
      for (let s = x * bin; s < Math.min(t + 1, (x + 1) * bin); s++) most = Math.max(most, weights[s] * (t + 1));
    }
    return aboveEven(most, 1);
  });
}

const layerNorm = (row, i) => Math.hypot(...row.norms[i]);

// A layer's state over the tokens, against its own largest norm.
function paintStrip(canvas, rows, i, pixels) {
  const norms = rows.map(row => layerNorm(row, i)), most = Math.max(...norms, 1e-30);
  paint(canvas, rows.length, 1, pixels, x => norms[x] / most);
}

// The state of each head of a layer over the tokens, each head against its own largest norm.
function paintHeads(canvas, rows, i, pixels) {
  const heads = rows.length ? rows[0].norms[i].length : 0;
  const most = Array.from({ length: heads }, (_, h) => Math.max(...rows.map(row => row.norms[i][h]), 1e-30));
  paint(canvas, rows.length, heads, pixels, (x, h) => rows[x].norms[i][h] / most[h]);
}

// A box around cell (x, y) of a map of width by height cells; x or y null: around the whole row or column.
function frame(element, x, y, width, height) {
  element.style.display = width && height ? "block" : "none";
  if (x !== null) Object.assign(element.style, { left: `${(100 * x) / width}%`, width: `${100 / width}%` });
  if (y !== null) Object.assign(element.style, { top: `${(100 * y) / height}%`, height: `${100 / height}%` });
}

// Where a number of tokens lies on the half-lives' axis, in percent: 1 at the left, LONGEST at the right, by logarithm.
const lifeAt = tokens => 100 * Math.min(1, Math.max(0, Math.log(tokens) / Math.log(LONGEST)));

// An element with properties and children; text is set as text, never as markup.
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}
