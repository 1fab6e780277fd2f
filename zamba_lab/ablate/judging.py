"""p of a claim, by itself and in its family; all of (..., n) differences, so that studies and simulated studies are judged alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zamba_lab.ablate import statistics as st
from zamba_lab.ablate.claims import Claim


def p_value(claim: Claim, differences: np.ndarray, reach: float) -> np.ndarray:
    """p that the claim is false, its threshold part of what is tested; 1 below LEAST_SEEDS. (..., n) -> (...)

    reach: the most that two seeds can differ by.
    """
    d = np.asarray(differences, dtype=float)
    if d.shape[-1] < st.LEAST_SEEDS:
        return np.ones(d.shape[:-1])
    if claim.direction == "equal":
        p = st.tost(d, claim.threshold)
        return p if claim.symmetric else np.maximum(p, st.bounded(d, claim.threshold, reach))
    if claim.direction == "differs":
        return np.minimum(1.0, 2 * np.minimum(st.more_than(d, claim.threshold), st.more_than(-d, claim.threshold)))
    return st.more_than(claim.sign * d, claim.threshold)


def against(claim: Claim, differences: np.ndarray) -> np.ndarray:
    """p that the effect is what was claimed or more: small means that the claim is refuted. (..., n) -> (...)"""
    d = claim.sign * np.asarray(differences, dtype=float)
    if claim.direction == "equal":
        return np.minimum(1.0, 2 * np.minimum(st.more_than(d, claim.threshold), st.more_than(-d, claim.threshold)))
    if claim.direction == "differs":
        return st.tost(d, claim.threshold) if claim.threshold else np.ones(d.shape[:-1])
    return st.more_than(-d, -claim.threshold)


def corrected(claims: Sequence[Claim], p: np.ndarray) -> np.ndarray:
    """p (claims, ...) after Holm within each family."""
    p, done = np.asarray(p, dtype=float), np.ones_like(p, dtype=float)
    for family in dict.fromkeys(claim.family for claim in claims):
        at = [k for k, claim in enumerate(claims) if claim.family == family]
        done[at] = st.holm(p[at])
    return done


def least_seeds(claim: Claim, reach: float, alpha: float) -> int:
    """The fewest seeds with which p can be alpha or less, if the effect is as clear as can be."""
    n = st.LEAST_SEEDS
    while (2 if claim.direction == "differs" else 1) / 2**n > alpha:
        n += 1
    if claim.direction == "equal" and not claim.symmetric:
        n = max(n, st.seeds_to_be_equivalent(claim.threshold, reach, alpha))
    return n
