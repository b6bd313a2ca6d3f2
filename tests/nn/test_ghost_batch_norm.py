"""Ghost batch norm against torch's batch norm applied by chunks, and everything it must work under."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, stack_module_state, vmap
from torch.utils.checkpoint import checkpoint

from batchscope.nn import GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d, convert_ghost_batch_norm, ghost_kernels

TORCH = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
GHOST = {2: GhostBatchNorm1d, 3: GhostBatchNorm1d, 4: GhostBatchNorm2d, 5: GhostBatchNorm3d}
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}

# Shape, ghost batch size, and the chunks that the definition asks for.
CUTS = [
    ((12, 5), 4, [4, 4, 4]),
    ((14, 5), 4, [4, 4, 4, 2]),
    ((13, 5), 4, [4, 4, 5]),
    ((5, 5), 2, [2, 3]),
    ((5, 5), 4, [5]),
    ((3, 5), 4, [3]),
    ((10, 3, 7), 4, [4, 4, 2]),
    ((8, 3, 1, 1), 4, [4, 4]),
    ((9, 3, 4, 6), 4, [4, 5]),
    ((7, 3, 16, 16), 3, [3, 4]),
    ((6, 70, 5, 5), 4, [4, 2]),
    ((4, 3, 5, 5), 1, [1, 1, 1, 1]),
    ((6, 2, 3, 4, 5), 2, [2, 2, 2]),
]
every_cut = pytest.mark.parametrize(("shape", "ghost_batch_size", "chunks"), CUTS, ids=str)


def pair(dimensions: int, channels: int, ghost_batch_size: int, **options: Any) -> tuple[nn.Module, nn.Module]:
    """torch's module and ours in float64, with the same random weights and statistics."""
    torch.manual_seed(0)
    reference = TORCH[dimensions](channels, **options).double()
    for value in reference.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    ours = GHOST[dimensions](channels, ghost_batch_size, **options).double()
    ours.load_state_dict(reference.state_dict())
    return reference, ours


def data(shape: Sequence[int], memory_format: torch.memory_format = torch.contiguous_format) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, gradient = (
        torch.randn(*shape, dtype=torch.float64, generator=generator).to(memory_format=memory_format) for _ in range(2)
    )
    return (x * 2 + 3).requires_grad_(), gradient


def by_chunks(reference: nn.Module, x: Tensor, chunks: list[int]) -> Tensor:
    return torch.cat([reference(chunk) for chunk in torch.split(x, chunks)])


def check_equal(reference: nn.Module, ours: nn.Module, x: Tensor, gradient: Tensor, chunks: list[int]) -> None:
    """Outputs, all gradients, running statistics and the count of batches."""
    twin = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    expected, output = by_chunks(reference, x, chunks), ours(twin)
    torch.testing.assert_close(output, expected, **EXACT)
    assert output.stride() == x.stride() or not x.is_contiguous()
    expected.backward(gradient)  # type: ignore[no-untyped-call]
    output.backward(gradient)
    torch.testing.assert_close(twin.grad, x.grad, **EXACT)
    for (name, a), (_, b) in zip(ours.named_parameters(), reference.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name, **EXACT)
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, msg=name, **EXACT)


@every_cut
@pytest.mark.parametrize("momentum", [0.1, None, 1.0, 0.0])
def test_equals_torch_by_chunks(
    shape: tuple[int, ...], ghost_batch_size: int, chunks: list[int], momentum: float | None
) -> None:
    reference, ours = pair(len(shape), shape[1], ghost_batch_size, momentum=momentum)
    for _ in range(2):
        check_equal(reference, ours, *data(shape), chunks)


@every_cut
def test_equals_torch_by_chunks_without_weights(
    shape: tuple[int, ...], ghost_batch_size: int, chunks: list[int]
) -> None:
    reference, ours = pair(len(shape), shape[1], ghost_batch_size, affine=False, track_running_stats=False)
    check_equal(reference, ours, *data(shape), chunks)


@pytest.mark.parametrize(
    ("shape", "memory_format"),
    [
        ((10, 3, 6, 6), torch.channels_last),
        ((10, 128, 6, 6), torch.channels_last),
        ((10, 16, 8, 4), torch.channels_last),
        ((10, 3, 4, 2, 3), torch.channels_last_3d),
    ],
    ids=str,
)
def test_channels_last_is_exact_and_stays(shape: tuple[int, ...], memory_format: torch.memory_format) -> None:
    reference, ours = pair(len(shape), shape[1], 4)
    x, gradient = data(shape, memory_format)
    check_equal(reference, ours, x, gradient, [4, 4, 2])
    assert ours(x).is_contiguous(memory_format=memory_format)


def test_mixed_layouts_are_exact() -> None:
    """A transposed input, and a gradient laid out unlike the input."""
    reference, ours = pair(4, 3, 4)
    x, _ = data((10, 3, 6, 5))
    _, gradient = data((10, 3, 6, 5), torch.channels_last)
    check_equal(reference, ours, x, gradient, [4, 4, 2])
    base, gradient = data((6, 3, 10, 5))
    reference.zero_grad()
    ours.zero_grad()
    check_equal(reference, ours, base.detach().transpose(0, 2).requires_grad_(), gradient.transpose(0, 2), [4, 4, 2])


def test_evaluation_is_ordinary_batch_norm() -> None:
    reference, ours = pair(4, 3, 4)
    x, _ = data((10, 3, 6, 5))
    assert torch.equal(ours.eval()(x), reference.eval()(x))
    reference, ours = pair(4, 3, 4, track_running_stats=False)
    assert torch.equal(ours.eval()(x), reference.eval()(x))


def test_a_large_ghost_batch_is_ordinary_batch_norm_bit_for_bit() -> None:
    reference, ours = pair(4, 3, 10)
    x, _ = data((10, 3, 6, 5))
    assert torch.equal(ours(x), reference(x))
    assert torch.equal(ours.get_buffer("running_var"), reference.get_buffer("running_var"))


def test_a_ghost_batch_of_one_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r"more than one value per channel, got ghost_batch_size 1 .*\(4, 3\)"):
        GhostBatchNorm1d(3, 1)(torch.randn(4, 3))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        GhostBatchNorm1d(3, 4)(torch.randn(1, 3))


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "8", None])
def test_nonsense_ghost_batch_sizes_are_refused(size: Any) -> None:
    for make in (lambda: GhostBatchNorm2d(3, size), lambda: convert_ghost_batch_norm(nn.Linear(1, 1), size)):
        with pytest.raises(ValueError, match="whole number of examples, at least 1, got"):
            make()


def test_wrong_dimensions_are_refused_as_by_torch() -> None:
    with pytest.raises(ValueError, match="expected 4D input"):
        GhostBatchNorm2d(3, 4)(torch.randn(8, 3))


def operations(batch_size: int, ghost_batch_size: int) -> int:
    """Tensor operations of one forward and backward pass."""
    module, x = GhostBatchNorm2d(3, ghost_batch_size), torch.randn(batch_size, 3, 4, 4, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        module(x).sum().backward()
    return sum(event.name.startswith("aten::") for event in profile.events())


def test_operations_do_not_grow_with_the_number_of_ghost_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    assert operations(4, 2) == operations(64, 2)
    monkeypatch.setattr(ghost_kernels, "BLOCK", 16 * 3 * 4 * 4)  # 16 examples: four blocks in a batch of 64
    assert operations(64, 2) == operations(64, 16)


@every_cut
def test_blocks_change_nothing(
    shape: tuple[int, ...], ghost_batch_size: int, chunks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of one ghost batch, and of two."""
    for ghosts in (1, 2):
        monkeypatch.setattr(ghost_kernels, "BLOCK", ghosts * ghost_batch_size * math.prod(shape[1:]))
        reference, ours = pair(len(shape), shape[1], ghost_batch_size)
        check_equal(reference, ours, *data(shape), chunks)


# Derivatives


@pytest.mark.parametrize("shape", [(7, 3), (7, 2, 3, 2)], ids=str)
def test_first_and_second_derivatives(shape: tuple[int, ...]) -> None:
    module = GHOST[len(shape)](shape[1], 3, track_running_stats=False).double()
    x, _ = data(shape)
    weight = torch.rand(shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.rand(shape[1], dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        out: Tensor = functional_call(module, {"weight": weight, "bias": bias}, (x,))
        return out

    assert torch.autograd.gradcheck(function, (x, weight, bias))
    assert torch.autograd.gradgradcheck(function, (x, weight, bias))


def test_second_derivative_of_an_input_that_is_copied() -> None:
    """A transposed input is laid out anew inside; its gradient graph must not be lost there."""
    module = GhostBatchNorm2d(2, 3, track_running_stats=False).double()
    x, _ = data((3, 2, 7, 2))
    assert torch.autograd.gradgradcheck(lambda x: module(x.transpose(0, 2)), (x,))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own jvp calls it
def test_forward_derivative() -> None:
    module = GhostBatchNorm2d(3, 2, track_running_stats=False).double()
    x, tangent = data((5, 3, 2, 2))
    along = jvp(module, (x.detach(),), (tangent,))[1]
    step = 1e-6
    numeric = (module(x + step * tangent) - module(x - step * tangent)) / (2 * step)
    torch.testing.assert_close(along, numeric, rtol=1e-7, atol=1e-7)


# Transforms, compilers, types


def loss_of(module: nn.Module, values: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
    output: Tensor = functional_call(module, (values, buffers), (x,))
    return output.square().mul(torch.linspace(0, 1, output.numel(), dtype=x.dtype).view_as(output)).sum()


@pytest.mark.parametrize("shape", [(9, 3), (10, 3, 4, 4)], ids=str)
def test_packed_equals_looped(shape: tuple[int, ...]) -> None:
    """Gradients and running statistics of three modules under vmap are those of each alone."""
    modules = [pair(len(shape), shape[1], 4)[1] for _ in range(3)]
    for seed, module in enumerate(modules):
        torch.manual_seed(seed)
        for parameter in module.parameters():
            nn.init.uniform_(parameter)
    x = data(shape)[0].detach()
    parameters, buffers = stack_module_state(modules)

    def step(values: dict[str, Tensor], buffers: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        def objective(values: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            changed = {name: value.clone() for name, value in buffers.items()}
            return loss_of(modules[0], values, changed, x), changed

        gradients, changed = grad(objective, has_aux=True)(values)
        return gradients, changed

    packed, statistics = vmap(step)(parameters, buffers)
    for row, module in enumerate(modules):
        loss = loss_of(module, dict(module.named_parameters()), dict(module.named_buffers()), x)
        loss.backward()  # type: ignore[no-untyped-call]
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(packed[name][row], parameter.grad, **EXACT)
        for name, value in module.named_buffers():
            torch.testing.assert_close(statistics[name][row], value, **EXACT)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # the compiler's own
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_compiled_equals_eager_in_one_graph(backend: str) -> None:
    _, eager = pair(4, 3, 4)
    compiled = copy.deepcopy(eager)
    x, gradient = data((10, 3, 4, 4))
    twin = x.detach().clone().requires_grad_()
    torch._dynamo.reset()
    output = torch.compile(compiled, backend=backend, fullgraph=True)(twin)
    output.backward(gradient)
    expected = eager(x)
    expected.backward(gradient)
    torch.testing.assert_close(output, expected, **EXACT)
    torch.testing.assert_close(twin.grad, x.grad, **EXACT)
    torch.testing.assert_close(compiled.state_dict(), eager.state_dict(), **EXACT)
    torch._dynamo.reset()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("whole", [True, False], ids=["module too", "input only"])
def test_half_precision_is_float32_rounded(dtype: torch.dtype, whole: bool) -> None:
    """Statistics are computed in float32: outputs are the exact ones of the rounded input, rounded once."""
    _, exact = pair(4, 3, 4)
    half = copy.deepcopy(exact).to(dtype if whole else torch.float32)
    exact.load_state_dict(half.state_dict())
    x, gradient = (value.detach().to(dtype) for value in data((10, 3, 4, 4)))
    a, b = x.clone().requires_grad_(), x.double().requires_grad_()
    output, expected = half(a), exact(b)
    assert output.dtype == dtype
    output.backward(gradient)
    expected.backward(gradient.double())
    assert a.grad is not None and b.grad is not None and a.grad.dtype == dtype
    one_rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(output.double(), expected, rtol=one_rounding, atol=one_rounding / 100)
    torch.testing.assert_close(a.grad.double(), b.grad, rtol=one_rounding, atol=one_rounding / 100)
    assert half.get_buffer("running_mean").dtype == (dtype if whole else torch.float32)


def test_autocast_keeps_statistics_in_float32() -> None:
    reference, ours = pair(4, 3, 4)
    reference.float(), ours.float()
    x = data((8, 3, 4, 4))[0].detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        output = ours(x)
        by_chunks(reference, x, [4, 4])
    assert output.dtype == torch.bfloat16
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(ours.get_buffer(name), reference.get_buffer(name), rtol=1e-6, atol=1e-6)


def test_a_large_mean_costs_no_more_digits_than_in_torch() -> None:
    """Mean 1000 times the spread, float32: the error against float64 is at most twice that of torch's kernel."""
    reference, ours = pair(4, 3, 4)
    x = data((8, 3, 8, 8))[0].detach() + 2000
    exact = by_chunks(reference, x.float().double(), [4, 4])
    reference.float(), ours.float()
    by_torch = (by_chunks(reference, x.float(), [4, 4]) - exact).abs().max()
    assert (ours(x.float()) - exact).abs().max() <= 2 * by_torch


# Accumulation


@pytest.mark.parametrize("micro_batch_size", [4, 8, 12])
def test_accumulation_is_exact_where_the_ghost_divides_the_micro_batch(micro_batch_size: int) -> None:
    """Ghost 4 in a batch of 24: outputs, gradients and statistics are those of the whole batch in one pass."""
    _, whole = pair(4, 3, 4)
    parts = copy.deepcopy(whole)
    x, gradient = data((24, 3, 4, 4))
    twin = x.detach().clone().requires_grad_()
    whole(x).backward(gradient)
    for micro, its_gradient in zip(
        torch.split(twin, micro_batch_size), torch.split(gradient, micro_batch_size), strict=True
    ):
        parts(micro).backward(its_gradient)
    torch.testing.assert_close(twin.grad, x.grad, **EXACT)
    for (_, a), (name, b) in zip(parts.named_parameters(), whole.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name, **EXACT)
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), **EXACT)


def test_a_micro_batch_smaller_than_the_ghost_is_one_ghost_batch() -> None:
    """Micro-batches of 6 with ghost 8 are batch norm of 6 each, not of 8: the one thing that is not exact."""
    reference, ours = pair(4, 3, 8)
    x, _ = data((12, 3, 4, 4))
    torch.testing.assert_close(
        torch.cat([ours(micro) for micro in torch.split(x, 6)]), by_chunks(reference, x, [6, 6]), **EXACT
    )
    torch.testing.assert_close(ours.state_dict(), reference.state_dict(), **EXACT)


def test_checkpointing_gives_the_exact_gradients() -> None:
    """The way to save memory with ghost batches larger than a micro-batch would be."""
    _, plain = pair(4, 3, 8)
    saving = copy.deepcopy(plain)
    x, gradient = data((16, 3, 4, 4))
    twin = x.detach().clone().requires_grad_()
    plain(x).backward(gradient)
    checkpoint(saving, twin, use_reentrant=False).backward(gradient)
    torch.testing.assert_close(twin.grad, x.grad, **EXACT)


# Conversion


def network() -> nn.Sequential:
    shared = nn.BatchNorm2d(4)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), shared, nn.ReLU(), nn.Sequential(nn.Conv2d(4, 4, 3), shared), nn.Flatten(),
        nn.BatchNorm1d(64, affine=False), nn.SyncBatchNorm(64), nn.GroupNorm(4, 64), nn.Linear(64, 2),
    )  # fmt: skip


def test_conversion_keeps_everything_but_the_class() -> None:
    torch.manual_seed(0)
    model = network()
    model.get_buffer("1.running_mean").uniform_()
    model[5].eval()
    seen: list[int] = []
    model[1].register_forward_hook(lambda *_: seen.append(1))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = list(model.parameters())
    converted, replaced = convert_ghost_batch_norm(model, 32)
    assert converted is model
    assert replaced == 2  # the shared one counts once
    assert (
        type(model[1]) is GhostBatchNorm2d
        and model[1] is model.get_submodule("3.1")
        and model[1].ghost_batch_size == 32
    )
    assert type(model[5]) is GhostBatchNorm1d and not model[5].training
    assert type(model[6]) is nn.SyncBatchNorm
    assert [id(parameter) for parameter in model.parameters()] == [id(parameter) for parameter in parameters]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert "ghost_batch_size=32" in repr(model[1])
    model[:4](torch.randn(8, 3, 8, 8))
    assert seen == [1, 1]


def test_conversion_of_a_lone_norm_a_second_conversion_and_a_model_without() -> None:
    norm, replaced = convert_ghost_batch_norm(nn.BatchNorm3d(2), 4)
    assert type(norm) is GhostBatchNorm3d and replaced == 1
    again, replaced = convert_ghost_batch_norm(norm, 8)
    assert again is norm and norm.ghost_batch_size == 8 and replaced == 1
    assert convert_ghost_batch_norm(nn.Linear(2, 2), 4)[1] == 0


def test_a_converted_model_trains_as_chunks_do_and_evaluates_as_before() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).double()
    converted, _ = convert_ghost_batch_norm(copy.deepcopy(model), 4)
    x = data((8, 3, 6, 6))[0].detach()
    assert torch.equal(converted.eval()(x), model.eval()(x))
    torch.testing.assert_close(converted.train()(x), by_chunks(model.train(), x, [4, 4]), **EXACT)
    # A state dict goes both ways.
    model.load_state_dict(converted.state_dict())
    converted.load_state_dict(model.state_dict())


def test_subclasses_of_others_are_left_alone() -> None:
    class WithActivation(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input).relu()

    model = nn.Sequential(WithActivation(3))
    assert convert_ghost_batch_norm(model, 4)[1] == 0
    assert type(model[0]) is WithActivation


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "ghost_batch_norm.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(block, {})
    assert capsys.readouterr().out == "1\n"
    assert [(ghosts, size) for _, ghosts, size in ghost_kernels.segments(100, 32)] == [(3, 32), (1, 4)]
    assert [(ghosts, size) for _, ghosts, size in ghost_kernels.segments(65, 32)] == [(1, 32), (1, 33)]
