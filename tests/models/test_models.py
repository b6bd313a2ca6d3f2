"""Every model: parameters counted by hand, packed equals looped, and what its paper says of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from batchscope import models
from batchscope.models import CharacterTransformer, CifarResNet, FullyConnected, SimpleCNN


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
        lambda: CifarResNet(8),
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
CASES |= {
    # A layer of width 256: 4 width^2 and 8 width^2, biases 4 and 4 + 1, two norms; embeddings are the output.
    "transformer-narrow": Case(
        lambda: models.Transformer(11, "narrow"),
        text,
        11 * 256 + 2 * (12 * 256**2 + 9 * 256 + 4 * 256),
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


@pytest.mark.parametrize("name", [name for name in CASES if name != "transformer-narrow"])
def test_first_loss_is_near_chance(name: str) -> None:
    """Small logits at the start: the loss is that of a uniform guess, within a factor of two.

    A Transformer whose output is its embedding begins by saying each token again.
    """
    case = CASES[name]
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
    model = CifarResNet(8)
    for parameter in model.blocks.parameters():
        nn.init.zeros_(parameter)
    inputs = torch.rand(2, 3, 32, 32)
    features = model.blocks(model.stem(inputs))
    assert features.shape == (2, 64, 8, 8)
    assert torch.equal(features[:, :16], model.stem(inputs)[..., ::4, ::4])
    assert not features[:, 16:].any()


def test_resnet_depth_counts_layers() -> None:
    model = CifarResNet(20)
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules()) == 20
    with pytest.raises(ValueError, match=r"6n \+ 2.*got 9"):
        CifarResNet(9)


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


# Parameters as published: torchvision's tables for ImageNet, and those of the architectures' usual implementations
# for small images (He et al. 2016a: 0.27M and 0.46M; Zagoruyko and Komodakis 2016: 2.7M; Szegedy et al. 2017: 55.8M).
PUBLISHED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[int, ...], int]] = {
    "alexnet": (models.AlexNet, (3, 224, 224), (1000,), 61_100_840),
    # ML18 section 3.1, by hand: 32x32 pooled three times is 4x4.
    "reduced-alexnet": (
        models.ReducedAlexNet,
        (3, 32, 32),
        (10,),
        (25 * 3 * 16 + 16)
        + (9 * 16 * 48 + 48)
        + (9 * 48 * 96 + 96)
        + (9 * 96 * 64 + 64)
        + (9 * 64 * 64 + 64)
        + (16 * 64 * 256 + 256)
        + (256 * 256 + 256)
        + (256 * 10 + 10),
    ),
    "alexnet-small": (lambda: models.AlexNet(10, small_images=True), (3, 32, 32), (10,), 2_472_266),
    "vgg-11": (lambda: models.VGG(11), (3, 224, 224), (1000,), 132_863_336),
    "vgg-16": (lambda: models.VGG(16), (3, 224, 224), (1000,), 138_357_544),
    "resnet-18": (lambda: models.ResNet(18), (3, 224, 224), (1000,), 11_689_512),
    "resnet-34": (lambda: models.ResNet(34), (3, 224, 224), (1000,), 21_797_672),
    "resnet-50": (lambda: models.ResNet(50), (3, 224, 224), (1000,), 25_557_032),
    "resnet-18-small": (lambda: models.ResNet(18, 10, small_images=True), (3, 32, 32), (10,), 11_173_962),
    "resnet-34-small": (lambda: models.ResNet(34, 10, small_images=True), (3, 32, 32), (10,), 21_282_122),
    "resnet-20": (lambda: CifarResNet(20, batch_norm=True, pre_activation=False), (3, 32, 32), (10,), 269_722),
    "resnet-32": (lambda: CifarResNet(32, batch_norm=True, pre_activation=False), (3, 32, 32), (10,), 464_154),
    "wrn-16-4": (models.WideResNet, (3, 32, 32), (10,), 2_748_890),
    "mobilenet-v2": (models.MobileNetV2, (3, 224, 224), (1000,), 3_504_872),
    "inception-resnet-v2": (models.InceptionResNetV2, (3, 299, 299), (1000,), 55_843_464),
    "drn-d-22": (lambda: models.DilatedResNet(1000), (3, 64, 96), (1000, 64, 96), 16_393_752),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_as_published_and_outputs_as_promised(name: str) -> None:
    build, inputs, outputs, parameters = PUBLISHED[name]
    with torch.device("meta"):
        model = build()
        assert model(torch.empty(2, *inputs)).shape == (2, *outputs)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_pre_activation_moves_norms_and_no_weight() -> None:
    """ResNet-50 loses the norms of stem and projections, and has one before each first convolution and at the end."""
    with torch.device("meta"):
        after, before = (models.ResNet(50, pre_activation=first) for first in (False, True))

    def numbers(model: nn.Module, kind: type[nn.Module]) -> int:
        return sum(p.numel() for module in model.modules() if isinstance(module, kind) for p in module.parameters())

    assert numbers(before, nn.Conv2d) == numbers(after, nn.Conv2d)
    # Norms of a bottleneck by its channels: (out + out + 4 out) after, (in + out + out) before.
    ends = [4 * 64, 4 * 128, 4 * 256, 4 * 512]
    projections = sum(ends)
    inputs = sum(first + (count - 1) * end for first, end, count in zip([64, *ends], ends, (3, 4, 6, 3), strict=False))
    outputs = sum(count * end for end, count in zip(ends, (3, 4, 6, 3), strict=True))
    assert numbers(after, nn.BatchNorm2d) - numbers(before, nn.BatchNorm2d) == 2 * (
        64 + projections + outputs - inputs - 2048
    )


LEARNS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet-20": (lambda: CifarResNet(20, batch_norm=True, pre_activation=False), (3, 32, 32)),
    "resnet-18-small": (lambda: models.ResNet(18, 10, small_images=True, pre_activation=True), (3, 16, 16)),
    "wrn-10-1": (lambda: models.WideResNet(10, 1), (3, 16, 16)),
    "reduced-alexnet-norms": (
        lambda: models.ReducedAlexNet(batch_norm=True, hidden_norm=True),
        (3, 32, 32),
    ),
    "mobilenet-v2": (lambda: models.MobileNetV2(10, small_images=True), (3, 32, 32)),
    "alexnet": (lambda: models.AlexNet(10, small_images=True), (3, 32, 32)),
    "vgg-11": (lambda: models.VGG(11, 10, small_images=True, batch_norm=True), (3, 32, 32)),
    "resnet-50": (lambda: models.ResNet(50, 10), (3, 64, 64)),
    "inception-resnet-v2": (lambda: models.InceptionResNetV2(10), (3, 75, 75)),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in ("resnet-20", "wrn-10-1") else [pytest.mark.slow]) for name in LEARNS],
)
def test_steps_on_one_batch_lower_its_loss(name: str) -> None:
    """In evaluation mode of batch norm's own statistics nothing would tell; so the batch itself is judged."""
    build, shape = LEARNS[name]
    torch.manual_seed(7)
    model, batch, labels = build(), torch.randn(6, *shape), torch.tensor([0, 1, 2, 3, 4, 5])
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = F.cross_entropy(model(batch), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_segmentation_is_enlarged_from_an_eighth_and_learns() -> None:
    torch.manual_seed(8)
    model = models.DilatedResNet(3)
    images, labels = torch.randn(2, 3, 32, 48), torch.randint(3, (2, 32, 48))
    before = F.cross_entropy(model(images), labels)
    before.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.sub_(0.01 * parameter.grad)
    assert F.cross_entropy(model(images), labels) < before
    assert model.features(images).shape == (2, 512, 4, 6)


def test_ghost_batch_norm_by_choice() -> None:
    """Every norm of a family can be made ghost batch norm, and at one ghost batch nothing changes."""
    from batchscope.nn import convert_ghost_batch_norm

    torch.manual_seed(9)
    model, batch = models.WideResNet(10, 1), torch.randn(4, 3, 16, 16)
    ghost, count = convert_ghost_batch_norm(models.WideResNet(10, 1), 4)
    ghost.load_state_dict(model.state_dict(), strict=False)
    assert count == sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    torch.testing.assert_close(ghost.train()(batch), model.train()(batch))


def test_lstm_of_the_papers() -> None:
    """Sh19's on LM1B: embedding, four gates with two biases, projection, output without bias; state by state."""
    vocabulary = 32_000
    with torch.device("meta"):
        large = models.LSTMLanguageModel(vocabulary, 1, 2048, embedding=1024, projection=512, output_bias=False)
    gates = 4 * 2048 * (1024 + 512) + 2 * 4 * 2048
    assert sum(p.numel() for p in large.parameters()) == vocabulary * (1024 + 512) + gates + 2048 * 512
    torch.manual_seed(10)
    model = models.LSTMLanguageModel(11, 2, 16, embedding=8).double()
    tokens = torch.randint(0, 11, (3, 7))
    changed = tokens.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 11
    assert torch.equal(model(tokens)[:, :4], model(changed)[:, :4])
    assert (model(tokens)[:, 4:] != model(changed)[:, 4:]).any()


def test_sizes_of_the_transformer_and_its_positions() -> None:
    """Sh19 appendix B: shallow has two layers, narrow half of everything, wide twice; positions turn with the step."""
    with torch.device("meta"):
        counts = {
            size: sum(p.numel() for p in models.Transformer(32_000, size).parameters())
            for size in models.TRANSFORMER_SIZES
        }

    def by_hand(layers: int, width: int, units: int) -> int:
        layer = 4 * width**2 + 4 * width + 2 * width * units + units + width + 4 * width
        return 32_000 * width + layers * layer

    assert counts == {
        "base": by_hand(6, 512, 2048),
        "shallow": by_hand(2, 512, 2048),
        "narrow": by_hand(2, 256, 1024),
        "wide": by_hand(6, 1024, 4096),
    }
    positions = models.transformer.sinusoids(50, 8, torch.zeros(1, dtype=torch.float64))
    # A pair of sine and cosine of one frequency: the product of two positions depends on their distance alone.
    products = positions @ positions.T
    torch.testing.assert_close(products.diagonal(3), products[3, 0].expand(47))
    torch.testing.assert_close(positions.square().sum(1), torch.full((50,), 4.0, dtype=torch.float64))
