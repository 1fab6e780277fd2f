"""A model in a page: one HTML file that holds the weights, the tokenizer and the forward pass, and needs no kernel and no network.

    zl.page(zl.load("zamba2-nano"), "page.html")     # or: zamba-lab page zamba2-nano -o page.html

file.py        `page`: the file, from its parts
packing.py     the tensors as text: exact, or in half precision
words.py       the tokenizer as data, and the texts that a page begins with and measures means on

    page.html  page.css     what is there, and how it looks in a light and in a dark theme
    model.js                the forward pass, one token at a time
    run.js                  a run over a text, the choice of the next token, the weights out of the page
    tokenizer.js            byte-level BPE
    draw.js                 maps, strips and bars on canvases
    page.js                 what the page shows now: the text, the runs over it, the switches
    view.js                 how it shows it
    keys.js                 what happens on a key or a click; starts the page

The forward pass is written twice, here and in `blocks/`, because the other ways are larger than the model: the WebAssembly file of
onnxruntime-web 1.30 alone has 14 MB, and its graphs hand out what they were exported with, while here every state and weight is at hand.
`tests/browser/test_page.py` holds this one to Python's, over the grid of architectures.
"""

from zamba_lab.pages.file import page

__all__ = ["page"]
