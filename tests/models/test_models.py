"""Every model: parameters counted by hand, packed equals looped, and what its paper says of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from batchscope.models import CharacterTransformer, FullyConnected, ResNetWithoutNorm, SimpleCNN


def images(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.rand(6, *shape, dtype=torch.float64), torch.arange(6)


def text() -> tuple[Tensor, Tensor]:
    tokens = torch.randint(0, 11, (3, 9))
    return tokens[:, :-1], tokens[:, 1:]


class Case:
    """A model, its batch, and its parameter count written out layer by layer (weights + biases)."""

    def __init__(
        self, build: Callable[[], nn.Module], batch: Callable[[], tuple[Tensor, Tensor]], parameters: int
    ) -> None:
        self.build, self.batch, self.parameters = build, batch, parameters


CASES = {
    "softmax": Case(lambda: FullyConnected((8, 8)), lambda: images(8, 8), 64 * 10 + 10),
    "fc-32-16": Case(
        lambda: FullyConnected((1, 28, 28), (32, 16)),
        lambda: images(1, 28, 28),
        (784 * 32 + 32) + (32 * 16 + 16) + (16 * 10 + 10),
    ),
    "fc-256-dropout": Case(
        lambda: FullyConnected((1, 28, 28), (256,), dropout=0.4),
        lambda: images(1, 28, 28),
        (784 * 256 + 256) + (256 * 10 + 10),
    ),
    # Sh19 appendix B: 28x28 pooled twice is 7x7.
    "simple-cnn-narrow": Case(
        lambda: SimpleCNN(size="narrow"),
        lambda: images(1, 28, 28),
        (25 * 16 + 16) + (25 * 16 * 32 + 32) + (49 * 32 * 512 + 512) + (512 * 10 + 10),
    ),
    "simple-cnn-base": Case(
        lambda: SimpleCNN(size="base", dropout=0.4),
        lambda: images(1, 28, 28),
        (25 * 32 + 32) + (25 * 32 * 64 + 64) + (49 * 64 * 1024 + 1024) + (1024 * 10 + 10),
    ),
    "simple-cnn-wide": Case(
        lambda: SimpleCNN(size="wide"),
        lambda: images(1, 28, 28),
        (25 * 64 + 64) + (25 * 64 * 128 + 128) + (49 * 128 * 2048 + 2048) + (2048 * 10 + 10),
    ),
    "resnet-8": Case(
        lambda: ResNetWithoutNorm(8),
        lambda: images(3, 32, 32),
        (9 * 3 * 16 + 16)
        + 2 * (9 * 16 * 16 + 16)
        + (9 * 16 * 32 + 32)
        + (9 * 32 * 32 + 32)
        + (9 * 32 * 64 + 64)
        + (9 * 64 * 64 + 64)
        + (64 * 10 + 10),
    ),
    # A layer: 4 width^2 of attention, 8 width^2 of feed-forward, biases 4 + 5 and norms 4 widths.
    "transformer": Case(
        lambda: CharacterTransformer(11, layers=2, width=16, heads=4, context=8),
        text,
        11 * 16 + 8 * 16 + 2 * (12 * 16**2 + 13 * 16) + 2 * 16 + (16 * 11 + 11),
    ),
}
every_model = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@every_model
def test_parameters_counted_by_hand(case: Case) -> None:
    assert sum(parameter.numel() for parameter in case.build().parameters()) == case.parameters


@every_model
def test_packed_equals_looped(case: Case) -> None:
    """Gradients of two models stacked under vmap are those of each alone in float64, no warning."""
    torch.manual_seed(0)
    models = [case.build().double().eval() for _ in range(2)]
    inputs, targets = case.batch()

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        outputs = functional_call(models[0], parameters, (inputs,))
        return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())

    stacked, buffers = stack_module_state(models)
    assert buffers == {}
    packed = vmap(grad(loss), randomness="different")(stacked)
    for row, model in enumerate(models):
        alone = grad(loss)({name: value.detach() for name, value in model.named_parameters()})
        for name, value in alone.items():
            torch.testing.assert_close(packed[name][row], value, rtol=1e-9, atol=1e-12)


@every_model
def test_same_seed_same_weights(case: Case) -> None:
    torch.manual_seed(1)
    first = case.build().state_dict()
    torch.manual_seed(1)
    second = case.build().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@every_model
def test_first_loss_is_near_chance(case: Case) -> None:
    """Small logits at the start: the loss is that of a uniform guess, within a factor of two."""
    torch.manual_seed(2)
    inputs, targets = case.batch()
    outputs = case.build().double().eval()(inputs)
    classes = outputs.shape[-1]
    loss = F.cross_entropy(outputs.flatten(0, -2), targets.flatten()).item()
    assert math.log(classes) / 2 < loss < math.log(classes) * 2


def test_he_initialization() -> None:
    """Standard deviations sqrt(2/fan_in) before ReLU, sqrt(1/fan_in) before softmax (4 standard errors)."""
    torch.manual_seed(3)
    layers = [m for m in FullyConnected((400,), (300, 200)).modules() if isinstance(m, nn.Linear)]
    for layer, gain in zip(layers, [2, 2, 1], strict=True):
        expected = math.sqrt(gain / layer.in_features)
        error = expected / math.sqrt(2 * layer.weight.numel())
        assert abs(layer.weight.std().item() - expected) < 4 * error
        assert not layer.bias.any()


def test_dropout_only_in_training_and_only_where_asked() -> None:
    torch.manual_seed(4)
    inputs = torch.rand(4, 1, 28, 28)
    for with_dropout in (
        FullyConnected((1, 28, 28), (64,), dropout=0.4),
        SimpleCNN(size="narrow", dropout=0.4),
    ):
        assert not torch.equal(with_dropout.train()(inputs), with_dropout(inputs))
        assert torch.equal(with_dropout.eval()(inputs), with_dropout(inputs))
    without = SimpleCNN(size="narrow").train()
    assert torch.equal(without(inputs), without(inputs))


def test_resnet_block_is_the_identity_when_its_convolutions_are_zero() -> None:
    """Zero residuals leave the shortcuts: the stem, subsampled, in the first 16 of 64 channels (option A)."""
    model = ResNetWithoutNorm(8)
    for parameter in model.blocks.parameters():
        nn.init.zeros_(parameter)
    inputs = torch.rand(2, 3, 32, 32)
    features = model.blocks(model.stem(inputs))
    assert features.shape == (2, 64, 8, 8)
    assert torch.equal(features[:, :16], model.stem(inputs)[..., ::4, ::4])
    assert not features[:, 16:].any()


def test_resnet_depth_counts_layers() -> None:
    model = ResNetWithoutNorm(20)
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules()) == 20
    with pytest.raises(ValueError, match=r"6n \+ 2.*got 9"):
        ResNetWithoutNorm(9)


def test_transformer_is_causal() -> None:
    torch.manual_seed(5)
    model = CharacterTransformer(11, layers=2, width=16, heads=4, context=8)
    tokens = torch.randint(0, 11, (1, 8))
    changed = tokens.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 11
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] != after[:, 5:]).any(-1).all()


def test_transformer_attention_equals_the_fused_one() -> None:
    torch.manual_seed(6)
    model = CharacterTransformer(11, layers=1, width=16, heads=4, context=8).double()
    attention = model.get_submodule("layers.0.attention")
    query_key_value, output = attention.get_submodule("query_key_value"), attention.get_submodule("output")
    x = torch.randn(2, 8, 16, dtype=torch.float64)
    query, key, value = (part.reshape(2, 8, 4, 4).transpose(1, 2) for part in query_key_value(x).chunk(3, dim=-1))
    fused = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(attention(x), output(fused.transpose(1, 2).reshape(2, 8, 16)))


def test_transformer_refuses_heads_that_do_not_divide_the_width() -> None:
    with pytest.raises(ValueError, match="3 heads and width 16"):
        CharacterTransformer(11, width=16, heads=3)
