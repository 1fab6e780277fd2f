"""Text -> filter -> deduplicate -> split -> tokenise -> pack.

corpus = corpora.build(["stdlib"], "runs/stdlib", tokenizer=2048)       # or Folder("texts"), Hub("fineweb-edu", ...)
corpus.packed("train").tokens                                           # mapped from a file
print(corpus)                                                           # what each stage kept and dropped

pipeline.py     `build`: stages, workers, going on after a kill
sources.py      where documents come from
quality.py      rules that drop them
grams.py        a text as 25-character grams: signatures, similarity;  duplicates.py  which documents say the same
shards.py       the work on disk;  assemble.py  its end;  corpus.py  the result
installed.py    the packages that this project stands on;  programs.py  what is done to program text
stdlib.py       the corpus of the shipped model, in memory;  tokens.py  vocabulary, ids and packing
"""

from zamba_lab.corpora.corpus import Corpus, fits, load
from zamba_lab.corpora.duplicates import Duplicates, find_duplicates
from zamba_lab.corpora.installed import Installed, differences
from zamba_lab.corpora.pipeline import build
from zamba_lab.corpora.quality import CODE, PLAIN, WEB, Rules, broken_rule
from zamba_lab.corpora.sources import Folder, Hub, Stdlib, distinct_names, source
from zamba_lab.corpora.stdlib import Document, check, deduplicate, manifest, save_manifest, stdlib_documents, texts
from zamba_lab.corpora.tokens import Packed, pack, train_tokenizer

# fmt: off
__all__ = [
    "CODE", "Corpus", "Document", "Duplicates", "Folder", "Hub", "Installed", "PLAIN", "Packed", "Rules", "Stdlib", "WEB",
    "broken_rule", "build", "check", "deduplicate", "differences", "distinct_names", "find_duplicates", "fits", "load", "manifest",
    "pack", "save_manifest", "source", "stdlib_documents", "texts", "train_tokenizer",
]
