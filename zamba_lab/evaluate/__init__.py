"""How good a model is: bits per byte of a text, and the tasks of lm-eval (extra `eval`).

bits.py            how well a text is predicted, beside what xz takes
lm.py              our models as a model of lm-eval: `--model zamba_lab`
shared.py          requests that begin alike: the common beginning is read once, its cache is copied
tasks.py           running tasks by name, with the published figures beside what is measured
generated.py       texts of the lab's own tasks;  long_context.py  tasks of any length, whose answer lies far back
tasks/             the YAML files of these, which lm-eval reads
command.py         `zamba-lab eval`
"""

from zamba_lab.lazy import lazy

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "bits": "Score document_bits score_files token_bits xz_bits xz_bits_in_windows xz_bits_per_document",
        "lm": "ZambaLM",
        "tasks": "Row Tasks run",
    },
)
