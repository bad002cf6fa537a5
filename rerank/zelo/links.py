"""How a difference of scores becomes a probability: Thurstone's and Bradley-Terry's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit, log_ndtr

Floats = NDArray[np.float64]

ROOT_2 = float(np.sqrt(2.0))
# The slope of F at 0 for the probit link: exp(0) / sqrt(pi).
DENSITY = float(1.0 / np.sqrt(np.pi))


@dataclass(frozen=True)
class Link:
    """P(a beats b) = F(score of a - score of b), F increasing, log-concave, F(-x) = 1 - F(x).

    `logs(x)`: log F(x) and log F(-x). `slopes(x, log F(x))`: the first derivative of log F and its
    second with the sign turned, neither below 0, both finite while |x| < 1e6.
    """

    name: str
    logs: Callable[[Floats], tuple[Floats, Floats]]
    slopes: Callable[[Floats, Floats], tuple[Floats, Floats]]

    def probability(self, difference: Floats) -> Floats:
        return np.asarray(np.exp(self.logs(np.asarray(difference, dtype=np.float64))[0]))


def _probit_logs(difference: Floats) -> tuple[Floats, Floats]:
    # One evaluation of the costly function, on the side where it keeps all its digits.
    lower = log_ndtr(-ROOT_2 * np.abs(difference))
    upper = np.log1p(-np.exp(lower))
    is_below = difference < 0
    return np.where(is_below, lower, upper), np.where(is_below, upper, lower)


def _probit_slopes(difference: Floats, log_probability: Floats) -> tuple[Floats, Floats]:
    # exp(-x^2) / F(x) in logarithms: both underflow for very negative x, their ratio does not.
    slope = DENSITY * np.exp(-(difference**2) - log_probability)
    # Far below zero the sum is a small difference of large numbers; the product is always below 2.
    return slope, np.clip(slope * (slope + 2.0 * difference), 0.0, 2.0)


def _logit_logs(difference: Floats) -> tuple[Floats, Floats]:
    log = np.asarray(log_expit(difference), dtype=np.float64)
    return log, log - difference


def _logit_slopes(difference: Floats, log_probability: Floats) -> tuple[Floats, Floats]:
    slope = -np.expm1(log_probability)
    return slope, slope * np.exp(log_probability)


# F(x) = Phi(sqrt(2) x) = (1 + erf x) / 2 (Thurstone 1927, case V, as in arXiv 2509.12541): what is
# seen of each document varies with variance 1/4, so that of a difference is 1/2.
THURSTONE = Link("thurstone", _probit_logs, _probit_slopes)
# F(x) = 1 / (1 + exp(-x)) (Zermelo 1929; Bradley and Terry 1952), the link of Elo ratings.
BRADLEY_TERRY = Link("bradley-terry", _logit_logs, _logit_slopes)
LINKS = {link.name: link for link in (THURSTONE, BRADLEY_TERRY)}
