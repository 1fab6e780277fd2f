"""Text -> filter -> deduplicate -> split -> tokenise -> pack: `stdlib.py` for the text, `tokens.py` for the ids."""
from zamba_lab.corpora.stdlib import Document, check, deduplicate, manifest, save_manifest, stdlib_documents, texts
from zamba_lab.corpora.tokens import Packed, pack, train_tokenizer

__all__ = ["Document", "Packed", "check", "deduplicate", "manifest", "pack", "save_manifest", "stdlib_documents", "texts",
           "train_tokenizer"]
