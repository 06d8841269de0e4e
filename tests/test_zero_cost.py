"""Scores of untrained networks against their definitions, computed another way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.networks.architecture import Architecture, Frame, Stage
from nas.networks.network import Network
from nas.searching.zero_cost import gradient_norm, jacobian_covariance

Case = tuple[Network, Tensor, Tensor]


@pytest.fixture
def case() -> Case:
    torch.manual_seed(1)
    stages = Stage(16, ("conv", "attention"), 2.0, kernel=3, head_width=8), Stage(16, ("s2_shift",), 1.0)
    network = Network(Architecture(Frame(16, 3, 5), 4, stages)).double()
    with torch.no_grad():
        for each in network.parameters():  # fresh ones are so small that images hardly differ in their gradients
            each.normal_(0, 0.5)
    return network, torch.randn(6, 3, 16, 16).double(), torch.tensor([0, 1, 2, 3, 4, 0])


def test_gradient_norm_is_the_sum_of_the_parameters_gradients_norms(case: Case) -> None:
    network, images, targets = case
    found = gradient_norm(*case)
    assert all(each.grad is None for each in network.parameters()), "nothing is left behind"
    F.cross_entropy(network(images), targets).backward()
    assert found == pytest.approx(sum(float(each.grad.norm()) for each in network.parameters() if each.grad is not None), rel=1e-9)


def test_gradient_norm_leaves_out_what_is_frozen_or_not_used() -> None:
    network = nn.Linear(3, 2)
    images, targets = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    whole = gradient_norm(network, images, targets)
    network.register_parameter("unused", nn.Parameter(torch.ones(3)))
    assert gradient_norm(network, images, targets) == pytest.approx(whole)
    network.bias.requires_grad_(False)
    assert 0 < gradient_norm(network, images, targets) < whole


def test_jacobian_covariance_is_that_of_the_papers_code(case: Case) -> None:
    """`eval_score` of the code to https://arxiv.org/abs/2006.04647v1, in numpy, image by image."""
    network, images, targets = case
    rows = []
    for image in images:
        one = image[None].clone().requires_grad_()
        network(one).sum().backward()
        assert one.grad is not None
        rows.append(one.grad.flatten().numpy())
    values = np.linalg.eigvalsh(np.corrcoef(np.array(rows)))
    k = 1e-5
    assert jacobian_covariance(network, images, targets) == pytest.approx(float(-np.sum(np.log(values + k) + 1.0 / (values + k))), rel=1e-6)
    assert not images.requires_grad


def test_images_that_a_network_cannot_tell_apart_score_low(case: Case) -> None:
    network, images, targets = case
    same = images[:1].repeat(6, 1, 1, 1) + 1e-4 * images
    assert jacobian_covariance(network, same, targets) < jacobian_covariance(network, images, targets) - 1000


def test_an_image_that_changes_nothing_gives_a_number() -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :2] * torch.tensor([[0.0], [1.0], [2.0]])

    assert np.isfinite(jacobian_covariance(Constant(), torch.randn(3, 1, 2, 2), torch.tensor([0, 1, 0])))
