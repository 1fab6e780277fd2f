"""lm-eval's own command line, with our models and tasks: python -m zamba_lab.evaluate --model zamba_lab --model_args pretrained=...

lm-eval has no place where a package can announce its models, so the plain `lm_eval` does not know them.
"""

import sys

from lm_eval.__main__ import cli_evaluate

import zamba_lab.evaluate.lm  # noqa: F401 - registers the model
from zamba_lab.evaluate.tasks import OURS

if __name__ == "__main__":
    if not {"--include_path", "ls", "validate"} & set(sys.argv):
        sys.argv += ["--include_path", str(OURS)]
    cli_evaluate()
