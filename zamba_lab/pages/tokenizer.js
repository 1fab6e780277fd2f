// Byte-level BPE: text to ids and back, as zamba_lab/tokenizer reads a tokenizer.json. Special tokens are never read out of a text.
class Tokenizer {
  // pieces: the vocabulary in id order, bytes written as letters; merges: pairs of pieces, the first to apply first; pattern: how a
  // text is cut into words; letters: the letter of each byte; labels: something to print for each id.
  constructor({ pieces, merges, pattern, letters, labels, specials, bos }) {
    Object.assign(this, { pieces, labels, bos, letters, specials: new Set(specials), pattern: new RegExp(pattern, "gu") });
    this.ids = new Map(pieces.map((piece, id) => [piece, id]));
    this.ranks = new Map(merges.map(([first, second], rank) => [`${first} ${second}`, rank]));
    this.bytes = new Map(letters.map((letter, byte) => [letter, byte]));
    this.known = new Map();
  }

  encode(text) {
    const ids = this.bos === null ? [] : [this.bos];
    let at = 0;
    for (const match of text.matchAll(this.pattern)) {
      if (match.index > at) ids.push(...this.word(text.slice(at, match.index)));
      if (match[0]) ids.push(...this.word(match[0]));
      at = match.index + match[0].length;
    }
    return at < text.length ? ids.concat(this.word(text.slice(at))) : ids;
  }

  word(text) {
    if (!this.known.has(text)) {
      let parts = Array.from(new TextEncoder().encode(text), byte => this.letters[byte]);
      for (;;) {
        let best = Infinity, pair = "";
        for (let i = 0; i + 1 < parts.length; i++) {
          const rank = this.ranks.get(`${parts[i]} ${parts[i + 1]}`);
          if (rank < best) [best, pair] = [rank, parts[i] + parts[i + 1]];
        }
        if (best === Infinity) break;
        const joined = [];
        for (let i = 0; i < parts.length; i++) {
          const here = i + 1 < parts.length && this.ranks.get(`${parts[i]} ${parts[i + 1]}`) === best;
          joined.push(here ? pair : parts[i]);
          if (here) i++;
        }
        parts = joined;
      }
      this.known.set(text, parts.map(part => this.ids.get(part)));
    }
    return this.known.get(text);
  }

  decode(ids) {
    const letters = ids.filter(id => !this.specials.has(id)).map(id => this.pieces[id]).join("");
    return new TextDecoder().decode(Uint8Array.from(letters, letter => this.bytes.get(letter)));
  }
}
