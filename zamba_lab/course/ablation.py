"""Lesson 10: what a part is worth, and how zero ablation misleads."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zamba_lab.course.exercises import Exercise, Mistake
from zamba_lab.course.inputs import draw
from zamba_lab.lens import intervene, mean, next_token_loss, resample, run, zero
from zamba_lab.lens.parts import count
from zamba_lab.model import Zamba

# --- solutions, as a learner reads them ----------------------------------------------------------------------------


def mean_ablated(value):
    """What a part puts out, replaced by its mean: the same vector for every text and every position.

    value: (b, l, d), the part's output for b texts of l tokens.
    Returns (b, l, d).
    """
    return value.mean(dim=(0, 1)).expand_as(value)


def resampled(value):
    """What a part puts out, replaced by what it put out for another text, at the same position.

    value: (b, l, d). Text i gets the values of text i - 1, the first those of the last.
    Returns (b, l, d).
    """
    return value.roll(1, dims=0)


def constant_share(values):
    """How much of a part's output is one constant vector: the mean's squared length over the mean of the squared lengths.

    values: (m, d), the outputs at m tokens.
    Returns a number between 0 and 1; 1 if the part always says the same.
    """
    mean = values.mean(dim=0)
    return mean.square().sum() / values.square().sum(dim=1).mean()


def paired_interval(before, after):
    """By how much does the loss rise, and how sure is that? The same texts before and after the change.

    before, after: (b,) losses, one for each text.
    Returns mean, low, high: the mean change, and mean -+ 1.96 standard errors.
    """
    change = after - before
    error = change.std() / math.sqrt(len(change))
    return change.mean(), change.mean() - 1.96 * error, change.mean() + 1.96 * error


# --- for the lesson --------------------------------------------------------------------------------------------------


@torch.no_grad()
def losses(
    model: Zamba, ids: Tensor, other: Tensor, invocation: int | None = None, ways: Sequence[str] = ("zero", "mean", "another text's")
) -> dict[str, Tensor]:
    """The loss of each text, (b,): "whole", and with an invocation (None: all of them) replaced in some ways.

    ids: (b, l). other: (b, l) other texts: they give the mean, and the values of another text.
    """
    found = {"whole": next_token_loss(model, ids)}
    for way in ways:
        if way == "zero":
            change = zero("invocation", invocation)
        else:
            change = (mean if way == "mean" else resample)("invocation", invocation, other)
        found[way] = next_token_loss(intervene(model, change), ids)
    return {way: loss.double().mean(1) for way, loss in found.items()}


def costs(loss: dict[str, Tensor]) -> dict[str, tuple[float, float, float]]:
    """For each way of replacing: the mean rise of the loss in nats, and the ends of its interval."""
    return {way: tuple(map(float, paired_interval(loss["whole"], after))) for way, after in loss.items() if way != "whole"}


@torch.no_grad()
def mean_costs(model: Zamba, ids: Tensor, other: Tensor) -> dict[str, tuple[float, float, float]]:
    """What replacing each mixer and each invocation by its mean costs: "mixer 0" -> the rise of the loss in nats, and its interval."""
    whole, found = next_token_loss(model, ids).double().mean(1), {}
    for part in ("mixer", "invocation"):
        for i in range(count(model.config, part)):
            after = next_token_loss(intervene(model, mean(part, i, other)), ids).double().mean(1)
            found[f"{part} {i}"] = tuple(map(float, paired_interval(whole, after)))
    return found


def outputs(model: Zamba, ids: Tensor, invocation: int) -> Tensor:
    """What one invocation sends through its link, (m, d), at all tokens but the first of each text."""
    name = f"invocation.{invocation}.link_out"
    return run(model, ids, keep=[name])[name][:, 1:].flatten(0, 1).double()


def reading(costs: dict[str, tuple[float, float, float]]) -> str:
    """What the intervals allow one to say."""
    low, high = costs["mean"][1:]
    zeroed, means = costs["zero"][0], costs["mean"][0]
    share = f"By zeros the part seems to be worth {zeroed:.3f} nats; by its mean, {means:+.4f} ({low:+.4f} to {high:+.4f})."
    if low > 0:
        return f"{share} The interval leaves out 0: what the part says about this text is used."
    if high < 0:
        return f"{share} The model is better off with the constant: what the part says does harm."
    return f"{share} The interval holds 0: that what the part says about this text is used is not shown."


# --- mistakes ------------------------------------------------------------------------------------------------------


def interval(before: Tensor, after: Tensor, error: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    middle = (after - before).mean()
    return middle, middle - 1.96 * error, middle + 1.96 * error


MEAN_ABLATED = Exercise(
    number="10.1",
    title="mean ablation",
    level="easy",
    minutes=5,
    solution=mean_ablated,
    cases=lambda: [tuple(draw(1, (3, 7, 5))), tuple(draw(2, (5, 2, 3)))],
    mistakes=(
        Mistake(
            "Each text keeps a mean of its own",
            "A mean over the positions of one text still says what that text is about. Average over texts, too.",
            lambda value: value.mean(1, keepdim=True).expand_as(value),
        ),
        Mistake(
            "Each position keeps a mean of its own",
            "Then the part still says where in the text it is. Average over positions, too.",
            lambda value: value.mean(0, keepdim=True).expand_as(value),
        ),
        Mistake(
            "The mean is over channels",
            "Channels are the components of the vector that should stay. Average over texts and positions: dimensions 0 and 1.",
            lambda value: value.mean(2, keepdim=True).expand_as(value),
        ),
        Mistake("This is zero ablation", "The constant that the part always adds is gone as well.", lambda value: torch.zeros_like(value)),
        Mistake(
            "One number is left of the vector",
            "`value.mean()` averages over channels as well: all d components become equal.",
            lambda value: value.mean().expand_as(value),
        ),
    ),
    hints=(
        "The result has one vector of d numbers, repeated. Over which two of the three dimensions do you average?",
        "`value.mean(dim=(0, 1))` is (d,); `.expand_as(value)` repeats it.",
    ),
)

RESAMPLED = Exercise(
    number="10.2",
    title="another text's value",
    level="easy",
    minutes=5,
    solution=resampled,
    cases=lambda: [tuple(draw(1, (3, 7, 5))), tuple(draw(2, (5, 4, 3)))],
    mistakes=(
        Mistake(
            "The positions are moved, not the texts",
            "Each token then gets the value of the token before, of the same text. Move along dimension 0.",
            lambda value: value.roll(1, dims=1),
        ),
        Mistake(
            "The texts move the other way",
            "Text 1 should get the values of text 0. That is a roll by +1.",
            lambda value: value.roll(-1, dims=0),
        ),
        Mistake(
            "Nothing is replaced", "Every text has its own values still, and the ablation would cost nothing.", lambda value: value.clone()
        ),
        Mistake(
            "The channels are moved",
            "Dimension 2 holds the components of one vector. Move along dimension 0.",
            lambda value: value.roll(1, dims=2),
        ),
    ),
    hints=("One dimension is shifted by one, and the last comes first.", "`value.roll(1, dims=0)`."),
)

CONSTANT_SHARE = Exercise(
    number="10.3",
    title="how much of it is a constant?",
    level="medium",
    minutes=10,
    solution=constant_share,
    cases=lambda: [(values + 0.7,) for shape in ((11, 3), (37, 5)) for values in draw(3, shape)],
    mistakes=(
        Mistake(
            "Lengths are compared, not their squares",
            "Only squares split up: the mean of |v|^2 is |mean|^2 plus the variance. Then the share is a share.",
            lambda values: values.mean(0).norm() / values.norm(dim=1).mean(),
        ),
        Mistake(
            "This is the share that varies",
            "It is one minus what is asked for.",
            lambda values: 1 - values.mean(0).square().sum() / values.square().sum(1).mean(),
        ),
        Mistake(
            "All components are averaged into one number",
            "The mean of a vector is a vector: average over the tokens, dimension 0, only.",
            lambda values: values.mean().square() / values.square().mean(),
        ),
        Mistake(
            "The squared lengths are summed over the tokens, not averaged",
            "Then the share would fall with the number of tokens.",
            lambda values: values.mean(0).square().sum() / values.square().sum(),
        ),
    ),
    hints=(
        "Two numbers: the squared length of the mean vector, and the mean of the squared lengths. Both are positive, and the first "
        "is never larger.",
        "`values.mean(dim=0).square().sum()` over `values.square().sum(dim=1).mean()`.",
    ),
)

PAIRED_INTERVAL = Exercise(
    number="10.4",
    title="an interval of pairs",
    level="medium",
    minutes=10,
    solution=paired_interval,
    cases=lambda: [(2 + a, 2.1 + a + 0.1 * b) for l in (7, 12) for a, b in (draw(l, (l,), (l,)),)],
    mistakes=(
        Mistake(
            "The texts are not paired",
            "Texts differ far more among themselves than before and after. Subtract text by text first, then take the deviation.",
            lambda before, after: interval(before, after, ((before.var() + after.var()) / len(before)).sqrt()),
        ),
        Mistake(
            "This is the spread of texts, not of their mean",
            "The standard error of a mean is the standard deviation over the root of the number of texts.",
            lambda before, after: interval(before, after, (after - before).std()),
        ),
        Mistake(
            "The sign is wrong",
            "A part that helped makes the loss rise when it is taken away: after - before.",
            lambda before, after: interval(after, before, (after - before).std() / math.sqrt(len(before))),
        ),
        Mistake(
            "The deviation divides by b, not by b - 1",
            "With few texts that makes intervals too narrow. `std()` of torch divides by b - 1 as it is.",
            lambda before, after: interval(before, after, (after - before).std(correction=0) / math.sqrt(len(before))),
        ),
        Mistake(
            "This divides by the number of texts, not by its root",
            "The error of a mean falls with the root of b.",
            lambda before, after: interval(before, after, (after - before).std() / len(before)),
        ),
    ),
    hints=(
        "First make one number of each text: its change. Then you need the mean of b numbers, and the standard error of that mean.",
        "`change = after - before`; `error = change.std() / len(change) ** 0.5`; return three numbers.",
    ),
)

EXERCISES = (MEAN_ABLATED, RESAMPLED, CONSTANT_SHARE, PAIRED_INTERVAL)
