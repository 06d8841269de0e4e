"""Scores of networks that nobody trained: what a ranking by training has to beat (Abdelfattah et al., https://arxiv.org/abs/2101.08134).

Each takes a fresh network and one batch of images, and is the larger the better.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def gradient_norm(network: nn.Module, images: Tensor, targets: Tensor) -> float:
    """The sum over parameters of the norm of the loss's gradient."""
    loss = F.cross_entropy(network(images), targets)
    gradients = torch.autograd.grad(loss, [each for each in network.parameters() if each.requires_grad], allow_unused=True)
    return float(sum(each.norm() for each in gradients if each is not None))


def jacobian_covariance(network: nn.Module, images: Tensor, targets: Tensor) -> float:
    """How little the outputs' gradients with respect to different images resemble each other: from the eigenvalues of their correlation, as
    -sum(log(v + k) + 1 / (v + k)) with k = 1e-5 (Mellor et al., https://arxiv.org/abs/2006.04647v1)."""
    wanted = images.detach().clone().requires_grad_()
    (jacobian,) = torch.autograd.grad(network(wanted).sum(), wanted)
    correlation = torch.corrcoef(jacobian.flatten(1).double())
    values = torch.linalg.eigvalsh(torch.nan_to_num(correlation)) + 1e-5
    return float(-(values.log() + 1 / values).sum())


PROXIES = {"gradient_norm": gradient_norm, "jacobian_covariance": jacobian_covariance}
