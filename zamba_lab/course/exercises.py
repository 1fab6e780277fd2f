"""An exercise as data: its stub, its solution, its hints, and the mistakes that its check knows by name."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Mistake:
    """A typical mistake: its name, a sentence on why it is one, and the function one writes when making it."""

    name: str
    advice: str
    function: Callable


@dataclass(frozen=True)
class Exercise:
    """One function to write.

    The check compares what a learner's function returns with what `solution` returns; where that differs, with what each mistake
    returns. So a mistake is recognised by what it computes, however it is written.

    number: "2.1", the lesson and the place in it. level: easy, medium, hard. cases: argument tuples, float64, awkward sizes.
    hints: a small one and a large one. outcome: (what was returned, *arguments) -> what is compared; None: what was returned itself.
    """

    number: str
    title: str
    level: str
    minutes: int
    solution: Callable
    cases: Callable[[], Sequence[tuple]]
    mistakes: tuple[Mistake, ...]
    hints: tuple[str, str]
    outcome: Callable | None = None

    @property
    def function_name(self) -> str:
        return self.solution.__name__

    def solution_code(self) -> str:
        """The solution as a learner reads it."""
        return textwrap.dedent(inspect.getsource(self.solution)).rstrip()

    def stub_code(self) -> str:
        """The solution's signature and docstring, with a place for the code."""
        code = self.solution_code()
        (definition,) = ast.parse(code).body
        assert isinstance(definition, ast.FunctionDef) and definition.body[0].end_lineno is not None
        return "\n".join([*code.splitlines()[: definition.body[0].end_lineno], "    ...  # your code here"])

    def result(self, function: Callable, arguments: tuple) -> Any:
        """What is compared, for a function that is right in form."""
        return self.compared(function(*arguments), arguments)

    def compared(self, returned: Any, arguments: tuple) -> Any:
        return returned if self.outcome is None else self.outcome(returned, *arguments)
