"""The supernet computes what the networks in it compute, and trains nothing but what ran."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import random
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nas.networks.architecture import Architecture, Frame
from nas.networks.layers import layer_specs, own_slice
from nas.networks.mixers import mixer_names
from nas.networks.network import Network
from nas.spaces.decisions import SearchSpace
from nas.spaces.supernet import Supernet

HERE = Path(__file__).parent
SPACE_FILES = [*sorted((HERE.parent / "search_spaces").glob("*.yaml")), *sorted((HERE / "spaces").glob("*.yaml"))]
RESOLUTION, CLASSES = 32, 10


@cache
def supernet_of(path: Path) -> Supernet:
    """At 32 px, its parameters away from the zeros, ones and tenths they may begin with, so that an entry taken wrongly shows."""
    torch.manual_seed(0)
    supernet = Supernet(SearchSpace.read(path).at(Frame(RESOLUTION, 3, CLASSES)))
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return supernet


@pytest.fixture(params=SPACE_FILES, ids=lambda path: path.stem)
def supernet(request: pytest.FixtureRequest) -> Supernet:
    return supernet_of(request.param)


@pytest.fixture
def own_supernet() -> Supernet:
    """One that a test may change."""
    return copy.deepcopy(supernet_of(next(path for path in SPACE_FILES if path.stem == "cifar")))


def some_of(space: SearchSpace, random_ones: int) -> list[Architecture]:
    """Random architectures, both ends of every decision, and every mixer at the smallest sizes, shared and not; then every form by itself."""
    rng = random.Random(0)
    smallest = {name: options[0] for name, options in space.decisions.items()}
    deep = {name: options[-1] for name, options in space.decisions.items() if name.endswith(".depth")}
    alone = {name: False for name in space.decisions if name.endswith(".sharing")}
    patterns = list(space.patterns().values())
    chosen = [space.random(rng) for _ in range(random_ones)]
    chosen += [smallest, {name: options[-1] for name, options in space.decisions.items()}]
    chosen += [{**smallest, **deep, **sharing, **pattern} for pattern in patterns for sharing in ({}, alone)]
    forms = [{name: option} for name in space.decisions if "." not in name for option in space.decisions[name]]
    chosen += [{**smallest, **deep, **form, **pattern} for form, pattern in zip(forms, itertools.cycle(patterns), strict=False)]
    return [space.decode(values) for values in chosen]


def images(batch: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(batch, 3, RESOLUTION, RESOLUTION, generator=torch.Generator().manual_seed(seed))


def backward(module: nn.Module, *inputs: object) -> Tensor:
    module.zero_grad(set_to_none=True)
    logits = module(*inputs)
    (logits * torch.linspace(-1, 1, logits.numel()).reshape(logits.shape)).sum().backward()
    return logits.detach()


def largest_error(supernet: Supernet, subnet: Network) -> float:
    """Between the gradients of a subnet and the supernet's in the same place, relative to each gradient's largest entry."""
    worst = 0.0
    homes = {spec.weights: spec.home for spec in layer_specs(subnet.architecture)}
    for weights, home in homes.items():
        module, shared = subnet.get_submodule(weights), supernet.get_submodule(home)
        for name, parameter in module.named_parameters():
            gradient = shared.get_parameter(name).grad
            assert gradient is not None
            taken = own_slice(module, name, gradient)
            worst = max(worst, ((taken - parameter.grad).abs().max() / parameter.grad.abs().max()).item())
            # outside the part there is nothing
            assert gradient.count_nonzero() == taken.count_nonzero(), (weights, name)
    return worst


def test_subnet_equals_supernet_in_outputs_and_gradients(supernet: Supernet) -> None:
    large = (
        len(supernet.space.decisions) > 30
    )  # of the spaces that take seconds, the largest network and every other pattern without sharing
    for architecture in some_of(supernet.space, random_ones=1)[2::4] if large else some_of(supernet.space, random_ones=6):
        subnet = supernet.subnet(architecture)
        assert torch.equal(backward(supernet, images(), architecture), backward(subnet, images()))
        # float32, not to the last bit: a product with a strided weight adds up its gradient in another order (1e-7 measured, 7e-16 in float64)
        assert largest_error(supernet, subnet) < 1e-6
    supernet.zero_grad(set_to_none=True)


def test_subnet_equals_standalone(supernet: Supernet) -> None:
    """A subnet is an ordinary network: its state dict loads into one, under the same names."""
    architecture = supernet.space.decode(supernet.space.random(random.Random(3)))
    subnet, network = supernet.subnet(architecture), Network(architecture)
    network.load_state_dict(subnet.state_dict())
    assert torch.equal(network(images()), subnet(images()))


@pytest.mark.whole
def test_subnet_equals_supernet_under_bf16_autocast(supernet: Supernet) -> None:
    for architecture in some_of(supernet.space, random_ones=2)[:4]:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            given, expected = supernet(images(), architecture), supernet.subnet(architecture)(images())
        assert given.dtype == torch.bfloat16
        assert torch.equal(given, expected)


def test_subnet_is_a_copy(own_supernet: Supernet) -> None:
    architecture = own_supernet.space.decode({name: options[-1] for name, options in own_supernet.space.decisions.items()})
    before = copy.deepcopy(own_supernet.state_dict())
    with torch.no_grad():
        for parameter in own_supernet.subnet(architecture).parameters():
            parameter.fill_(7.0)
    assert all(torch.equal(value, before[name]) for name, value in own_supernet.state_dict().items())


def test_a_step_leaves_candidates_that_did_not_run_untouched(own_supernet: Supernet) -> None:
    space = own_supernet.space
    architecture = space.decode(space.random(random.Random(5)))
    optimizer = torch.optim.AdamW(own_supernet.parameters(), lr=0.1, weight_decay=0.1)
    # moments of an earlier step would move a parameter whose gradient is zero; none must be there, nor be asked
    for other in some_of(space, random_ones=2)[:2]:
        backward(own_supernet, images(), other)
        optimizer.step()
    before = copy.deepcopy(own_supernet.state_dict())
    backward(own_supernet, images(), architecture)
    optimizer.step()
    ran = {spec.home for spec in layer_specs(architecture)}
    for name, parameter in own_supernet.named_parameters():
        used = any(name.startswith(f"{weights}.") for weights in ran)
        assert (parameter.grad is not None) == used, name
        assert torch.equal(parameter, before[name]) == (not used), name


def test_everything_but_mixer_norm_and_scale_is_one_per_place(supernet: Supernet) -> None:
    """Whichever mixer ran; a shared mixer is a place of its own."""
    space = supernet.space
    patterns = {name: values for name, values in space.patterns().items() if name in mixer_names()}
    largest = {name: options[-1] for name, options in space.decisions.items()}
    weights = [{spec.home for spec in layer_specs(space.decode({**largest, **values}))} for values in patterns.values()]
    common = set.intersection(*weights)
    last = len(space.decode(largest).stages) - 1
    for place in (f"stages.{last}.blocks.0.mlp", f"stages.{last}.blocks.0.cpe", f"stages.{last}.merge", "stem", "head"):
        assert any(name.startswith(place) for name in common)
    assert all(".mlp" in name or ".cpe" in name or ".merge" in name for name in common if name.startswith(f"stages.{last}"))
    shared = [name for name, _ in supernet.named_modules() if ".shared." in name and name.count(".") == 3]
    assert shared
    assert all(f"stages.{name.split('.')[1]}.blocks.0.mixer.{name.split('.')[3]}" in dict(supernet.named_modules()) for name in shared)


def test_nothing_is_implemented_a_second_time(supernet: Supernet) -> None:
    for architecture in some_of(supernet.space, random_ones=3):
        with torch.no_grad():
            supernet(images(1), architecture)
    for skeleton, *_ in supernet._skeletons.values():
        assert all(parameter.is_meta for parameter in skeleton.parameters())
    for home, spec in supernet.space.largest_layers.items():
        assert type(supernet.get_submodule(home)) is spec.layer
    registered = {id(module) for module in supernet.modules()}
    assert not any(id(skeleton) in registered for skeleton, *_ in supernet._skeletons.values())


def test_every_weight_of_the_supernet_belongs_to_some_architecture(supernet: Supernet) -> None:
    architectures = some_of(supernet.space, random_ones=0)
    norms = [{"norm": norm} for norm in supernet.space.decisions.get("norm", ())]
    architectures += [dataclasses.replace(architecture, **norm) for architecture in architectures for norm in norms]
    used = {spec.home for architecture in architectures for spec in layer_specs(architecture)}
    with_cpe = {f"{weights.rpartition('.')[0]}.cpe" for weights in used if ".mlp" in weights}
    assert set(supernet.space.largest_layers) == used | (with_cpe & set(supernet.space.largest_layers))


def test_batch_norm_keeps_one_set_of_statistics_whichever_subnet_runs() -> None:
    """They are of the images alone: after the same batches a standalone stem has the same, and in evaluation a subnet equals the supernet."""
    supernet = copy.deepcopy(supernet_of(HERE / "spaces" / "conv4.yaml")).train()
    architectures = some_of(supernet.space, random_ones=2)[:3]
    stem = copy.deepcopy(supernet.stem_conv4)
    for seed, architecture in enumerate(architectures):
        supernet(images(4, seed=seed), architecture)
        stem(images(4, seed=seed))
    assert {name: buffer.tolist() for name, buffer in supernet.stem_conv4.named_buffers()} == {
        name: buffer.tolist() for name, buffer in stem.named_buffers()
    }
    assert supernet.stem_conv4.bn1.num_batches_tracked - 3 == supernet_of(HERE / "spaces" / "conv4.yaml").stem_conv4.bn1.num_batches_tracked
    supernet.eval()
    for architecture in architectures:
        assert torch.equal(supernet(images(), architecture), supernet.subnet(architecture)(images()))


def test_subnets_keep_batch_statistics_of_their_own() -> None:
    supernet = copy.deepcopy(supernet_of(HERE / "spaces" / "conv4.yaml"))
    before = supernet.stem_conv4.bn1.running_mean.clone()
    subnet = supernet.subnet(some_of(supernet.space, random_ones=1)[0]).train()
    subnet(images())
    assert torch.equal(supernet.stem_conv4.bn1.running_mean, before)
    assert not torch.equal(subnet.stem.bn1.running_mean, before)
