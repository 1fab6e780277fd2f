"""The specimen sheet of a model: what its heads look for, what each part is worth, what carries a memory, how well it writes.

    sheet = zl.specimen(zl.load("zamba2-nano"))      # or: zamba-lab specimen zamba2-nano
    sheet.save("runs/sheet")                         # specimen.json and specimen.md
    print(sheet)

measure.py         `specimen`: the sheet's parts, one after the other
heads.py           scores, spread, constant shares
worth.py           each part replaced, beside random changes as large
retrieval.py       a needle, asked for without the states or without keys and values
names.py           first and repeated identifiers of a program
coding.py          bits a byte beside `xz -9`;  continuations.py  what it writes, and whether that parses
held_out.py        the texts;  estimates.py  means and intervals;  sheet.py  the result as JSON and Markdown
"""

from zamba_lab.specimens.held_out import held_out
from zamba_lab.specimens.measure import FULL, QUICK, Size, specimen
from zamba_lab.specimens.sheet import Sheet

__all__ = ["FULL", "QUICK", "Sheet", "Size", "held_out", "specimen"]
