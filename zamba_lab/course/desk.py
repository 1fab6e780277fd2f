"""What the lessons call: check, solution, compare, beside."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch

from zamba_lab.course import checking
from zamba_lab.course.catalogue import exercise
from zamba_lab.course.checking import Verdict
from zamba_lab.course.records import record


def check(number: str, function: Callable) -> Verdict:
    """Is the function a solution of this exercise? What is passed is noted in the progress file.

    Raises ValueError if there is no such exercise; whatever the function does is a sentence.
    """
    verdict = checking.judge(exercise(number), function)
    return dataclasses.replace(verdict, sentence=verdict.sentence + record(number)) if verdict.passed else verdict


def solution(number: str) -> None:
    """Print a solution. Raises ValueError if there is no such exercise."""
    print(exercise(number).solution_code())


def compare(prediction: Any, measured: Any, unit: str = "") -> None:
    """Print a prediction beside what was measured. A prediction that is still `...` is named as missing, and nothing is hidden."""
    said, found = (f"{words(value)} {unit}".rstrip() for value in (prediction, measured))
    if prediction is ...:
        print(f"measured: {found}. You made no prediction: a wrong one would have taught you more than none.")
    elif not (is_number(prediction) and is_number(measured)):
        print(f"You said {said}; it is {found}" + (": as you said." if prediction == measured else "."))
    elif math.isclose(prediction, measured, rel_tol=0.1, abs_tol=1e-9):
        print(f"You said {said}; it is {found}: within a tenth.")
    elif prediction * measured > 0:
        factor = max(prediction / measured, measured / prediction)
        print(f"You said {said}; it is {found}: {words(factor)} times {'less' if abs(prediction) > abs(measured) else 'more'}.")
    else:
        print(f"You said {said}; it is {found}.")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def words(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def beside(mine: Callable, theirs: Callable, *arguments: Any) -> None:
    """Call both on the same arguments and print the largest difference; a stub is named as not done."""
    try:
        own = mine(*arguments)
    except NotImplementedError:
        own = None
    except Exception as error:
        print(f"{mine.__name__} raised {type(error).__name__}: {error}")
        return
    if own is None:
        print(f"{mine.__name__} is not done yet: come back to this cell when its check has passed")
        return
    own, other = (result if isinstance(result, tuple) else (result,) for result in (own, theirs(*arguments)))
    if [part.shape for part in own] != [part.shape for part in other]:
        print(f"shapes differ: {[tuple(part.shape) for part in own]} and {[tuple(part.shape) for part in other]}")
        return
    difference = max(float((a - b).abs().max()) for a, b in zip(own, other, strict=True))
    size = max(float(torch.as_tensor(part).abs().max()) for part in other)
    print(f"largest difference {difference:.1e}, in numbers of up to {size:.2g}")
