"""The check of an exercise: right, not done yet, wrong in form, a mistake that has a name, or wrong in a way that has none."""

import inspect
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from zamba_lab.course.exercises import Exercise
from zamba_lab.course.running import changed, copied, limited

SECONDS = 5.0  # for one call
CLOSE = 1e-8  # of the largest number that is expected


@dataclass(frozen=True)
class Verdict:
    """What a check says. status: passed, not done, or wrong. mistake: the name of a known one, or ""."""

    exercise: Exercise
    status: str
    sentence: str
    mistake: str = ""

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    def __repr__(self) -> str:
        return f"{self.status.upper()}  {self.exercise.number} {self.exercise.title}: {self.sentence}"

    def _repr_markdown_(self) -> str:
        return f"**{self.status.upper()}** &nbsp; {self.exercise.number} {self.exercise.title}: {self.sentence}"


class WrongForm(Exception):
    """The returned thing is not of the kind that was asked for; its sentence says how."""


class NotDone(Exception):
    """The function is the stub still."""


def judge(exercise: Exercise, function: Any, seconds: float = SECONDS) -> Verdict:
    """Run a learner's function on the exercise's cases and say what is wrong with it, if anything is. Never raises."""
    if not callable(function):
        return Verdict(
            exercise, "wrong", f"this is {kind(function)}: pass the function itself, `{exercise.function_name}`, without calling it"
        )
    cases = list(exercise.cases())
    try:
        results = [run_case(exercise, function, arguments, seconds) for arguments in cases]
    except NotDone:
        return Verdict(exercise, "not done", "the stub is as it was")
    except WrongForm as error:
        return Verdict(exercise, "wrong", str(error))
    expected = [exercise.result(exercise.solution, arguments) for arguments in cases]
    if all(map(same, results, expected)):
        return Verdict(exercise, "passed", "right")
    for mistake in exercise.mistakes:
        if all(same(result, exercise.result(mistake.function, copied(arguments))) for result, arguments in zip(results, cases)):
            return Verdict(exercise, "wrong", f"{mistake.name}. {mistake.advice}", mistake.name)
    return Verdict(exercise, "wrong", unknown(exercise, cases, results, expected))


def run_case(exercise: Exercise, function: Callable, arguments: tuple, seconds: float) -> Any:
    """What is compared, for one case. Raises NotDone or WrongForm."""
    names = list(inspect.signature(exercise.solution).parameters)
    with_sizes = f"with {described(names, arguments)}"
    given = copied(arguments)
    try:
        returned = limited(function, given, seconds)
    except NotImplementedError:
        raise NotDone from None
    except TimeoutError as error:
        raise WrongForm(f"{with_sizes} {error}. Does a loop never end?") from None
    except (Exception, SystemExit) as error:
        raise WrongForm(f"{with_sizes} it raised {type(error).__name__}: {error}") from None
    if returned is None or returned is ...:
        raise NotDone
    if spoilt := changed(arguments, given, names):
        raise WrongForm(f"it changes its argument {' and '.join(spoilt)} in place: make a new tensor, the caller still needs the old one")
    require_form(returned, exercise.solution(*arguments), with_sizes)
    return exercise.compared(returned, arguments)


def require_form(returned: Any, expected: Any, with_sizes: str, what: str = "the result") -> None:
    """Raises WrongForm unless type, number, shape and dtype are those of the expected result."""
    if isinstance(expected, tuple):
        if not isinstance(returned, tuple) or len(returned) != len(expected):
            raise WrongForm(f"{what} should be {len(expected)} things, as in `return a, b`: got {kind(returned)}")
        for i, (part, right) in enumerate(zip(returned, expected)):
            require_form(part, right, with_sizes, f"returned value {i + 1} of {len(expected)}")
    elif isinstance(expected, torch.Tensor) and expected.ndim:
        if not isinstance(returned, torch.Tensor):
            more = ": torch.stack makes one of a list of tensors" if isinstance(returned, list) else ""
            raise WrongForm(f"{what} should be a tensor: got {kind(returned)}{more}")
        if returned.shape != expected.shape:
            raise WrongForm(f"{with_sizes} {what} should have shape {tuple(expected.shape)}: got {tuple(returned.shape)}")
        if returned.dtype != expected.dtype:
            raise WrongForm(f"{what} should be {name(expected.dtype)}, as its input: got {name(returned.dtype)}. Make new tensors "
                            "like an input, as in x.new_zeros(3)")  # fmt: skip
    elif isinstance(expected, bool | str | list):
        if type(returned) is not type(expected):
            raise WrongForm(f"{what} should be {kind(expected)}: got {kind(returned)}")
    elif not (isinstance(returned, numbers.Real) or (isinstance(returned, torch.Tensor) and returned.numel() == 1)):
        raise WrongForm(f"{what} should be one number: got {kind(returned)}")


def same(a: Any, b: Any) -> bool:
    """Equal up to rounding; two things that are not numbers, exactly."""
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, list | str) or isinstance(b, list | str):
        return a == b
    a, b = (torch.as_tensor(part, dtype=torch.float64) for part in (a, b))
    if a.shape != b.shape and not a.numel() == b.numel() == 1:
        return False
    return not bool(differs(a.reshape(b.shape), b).any())


def differs(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Where two tensors are not the same; float64. NaN is NaN."""
    finite = b[b.isfinite()].abs()
    return ~torch.isclose(a, b, rtol=1e-7, atol=CLOSE * (float(finite.max()) if finite.numel() else 1.0), equal_nan=True)


def unknown(exercise: Exercise, cases: list[tuple], results: list, expected: list) -> str:
    """A sentence on the first difference that no known mistake explains."""
    names = list(inspect.signature(exercise.solution).parameters)
    i = next(i for i, (result, right) in enumerate(zip(results, expected)) if not same(result, right))
    got, right, where = results[i], expected[i], ""
    if isinstance(right, tuple):
        k = next(k for k in range(len(right)) if not same(got[k], right[k]))
        got, right, where = got[k], right[k], f" in value {k + 1} of {len(right)}"
    sizes = f"with {described(names, cases[i])}"
    if not isinstance(right, torch.Tensor) or right.ndim == 0:
        return f"{sizes}{where} it gives {short(got)}, and {short(right)} is right"
    got, right = torch.as_tensor(got).double(), right.double()
    if not got.isfinite().all() and right.isfinite().all():
        at = tuple((~got.isfinite()).nonzero()[0].tolist())
        return f"{sizes} the result has NaN or infinity{where}, first at {list(at)}"
    wrong = differs(got, right)
    at = tuple(wrong.nonzero()[0].tolist())
    share = f"{int(wrong.sum())} of {wrong.numel()} numbers are wrong{where}"
    return f"{sizes} {share}; the first, at {list(at)}, is {short(got[at])} and should be {short(right[at])}"


def described(names: list[str], arguments: tuple) -> str:
    """The arguments by their sizes, and numbers by their values."""
    tensors = [f"{n} {tuple(a.shape)}" for n, a in zip(names, arguments) if isinstance(a, torch.Tensor) and a.ndim]
    rest = [f"{n} = {short(a)}" for n, a in zip(names, arguments) if not (isinstance(a, torch.Tensor) and a.ndim) and not callable(a)]
    return ", ".join(tensors + rest)


def short(value: Any) -> str:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else str(value)
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def kind(value: Any) -> str:
    """A value in words."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"a {type(value).__name__}"
