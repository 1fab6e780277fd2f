"""Opening and writing checkpoints, exactly: `load`, `save`, the error that says what does not fit, `doctor` and `parity`.

layouts.py      names as tables: one for each layout a model was ever stored in
binding.py      what a table says about a config, and how a stored tensor differs from ours
published.py    the keys of published config.json files as tables;  config_read.py and config_write.py use them
plan.py         what goes where, from names and shapes alone
folder.py       a folder that several processes read and save into;  files.py and pickled.py: weight files, bounded
load.py  save.py  doctor.py  compare.py  hub.py
"""

from zamba_lab.checkpoints.compare import Parity, parity
from zamba_lab.checkpoints.doctor import Report, doctor
from zamba_lab.checkpoints.errors import CheckpointError
from zamba_lab.checkpoints.load import check_tokenizer, load, load_config
from zamba_lab.checkpoints.save import save

__all__ = ["CheckpointError", "Parity", "Report", "check_tokenizer", "doctor", "load", "load_config", "parity", "save"]
