"""Logits and targets -> one number per row or list, still to be averaged.

Sums instead of means, so that a step's loss is the same however it is divided over micro-batches
and processes: the loop divides by what the whole step holds.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

# relevance = sigmoid(logit / TEMPERATURE), as zerank publishes it and zELO trains it.
TEMPERATURE = 5.0


def mse(
    logits: torch.Tensor, targets: torch.Tensor, temperature: float = TEMPERATURE
) -> torch.Tensor:
    """Sum of (sigmoid(logit / temperature) - target)^2 (zELO, arXiv 2509.12541)."""
    return ((torch.sigmoid(logits / temperature) - targets) ** 2).sum()


def bce(
    logits: torch.Tensor,
    targets: torch.Tensor,
    temperature: float = 1.0,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum of -t log p - (1 - t) log(1 - p) for soft labels t, p = sigmoid(logit / temperature);
    `weights` (n,) of each."""
    return F.binary_cross_entropy_with_logits(
        logits / temperature, targets, weight=weights, reduction="sum"
    )


def pair_bce(
    logits: torch.Tensor, preferences: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """`bce` of P(a is better than b) = sigmoid(logit)."""
    return bce(logits, preferences, 1.0, weights)


def listwise(logits: torch.Tensor, targets: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Of one list: -sum_i q_i log softmax(logits / temperature)_i, q = targets / sum of targets
    (ListNet's top one). 0, with a gradient of 0, where all targets are 0."""
    total = targets.sum()
    if float(total) <= 0:
        return logits.sum() * 0.0
    return -(targets / total * F.log_softmax(logits / temperature, dim=0)).sum()
