"""The meter against arithmetic done by hand."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from lift_trl.estimate.weightless.meter import Count, Meter, linear, metering


def test_memory_and_products_of_a_layer_are_those_of_arithmetic():
    with metering() as meter:
        with meter.taking("weights"):
            layer = nn.Linear(1024, 512, bias=False)
        out = layer(torch.zeros(64, 1024))
        del out
    count = meter.count()
    assert count.matmul_flops == 2 * 64 * 1024 * 512
    assert count.peak == {"weights": 4 * 1024 * 512, "activations": 4 * 64 * (1024 + 512)}


def test_backward_is_a_phase():
    """Fails when the private function that tells a run of the engine goes."""
    with metering() as meter:
        weight = torch.zeros(256, 256, requires_grad=True)
        (torch.zeros(256, 256) @ weight).sum().backward()
    count = meter.count()
    assert set(count.peaks) == {"run", "backward"}
    assert count.peaks["backward"]["gradients and recomputed activations"] >= 4 * 256 * 256
    assert count.matmul_flops == 2 * 2 * 256**3  # forward, and the weight's gradient


def test_an_operation_goes_straight_to_the_meter():
    """Fails when the private name goes that spares a detour by the compiler."""

    class Own(Meter):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    assert Own.__torch_dispatch__.__code__.co_filename == __file__


def test_what_is_freed_is_not_in_use():
    with metering() as meter:
        for _ in range(5):
            torch.zeros(1 << 20)
    assert meter.count().peak_bytes == 4 << 20


def test_known_numbers_are_computed_and_unknown_ones_are_not():
    with metering():
        rewards = torch.tensor([0.9, 0.2])
        assert rewards.tolist() == [pytest.approx(0.9), pytest.approx(0.2)]
        assert (torch.arange(5) * 2)[3].item() == 6
        hidden = torch.randn(3, 4)
        assert hidden[torch.tensor([True, False, True])].shape == (2, 4)  # a mask that is known
        assert hidden.isfinite().all() and hidden.sum().item() == 1.0


def test_what_is_run_straight_has_the_form_that_fake_tensors_have():
    """Views and products, of what is not contiguous; results that share memory, and those of several parts."""

    def outcomes():
        x = torch.zeros(3, 5, 8).transpose(0, 2)
        row = torch.zeros(3)
        yield from (
            x[1:7:2],
            x.permute(2, 0, 1),
            x.unsqueeze(1).expand(-1, 4, -1, -1),
            x[2],
            x.detach(),
            x.mT.contiguous(),
        )
        yield from (
            x.reshape(8, 15),
            x.to(torch.bfloat16),
            x.clone(),
            x + row,
            x - 2,
            -x * row,
            x / row,
            x.sum(1),
            F.silu(x),
        )
        yield from (*x.split((1, 7)), *x.split(3), torch.cat([x, x.bfloat16()], 1), torch.stack([x, x], 1))
        yield from (
            x[0] @ row.expand(2, 3).t(),
            F.linear(x, torch.zeros(4, 3), torch.zeros(4)),
            F.layer_norm(x, (3,), row),
        )
        yield from (F.silu(x), x[0].add_(1), F.gelu(x), x[1].mul_(row), torch.zeros_like(x), x[2].zero_())
        yield from (*x.split([1, 7]), torch.empty_like(x).uniform_(), x[:, 1:].bfloat16().copy_(x[:, 1:]))

    def forms():
        return [
            (one.shape, one.stride(), one.storage_offset(), one.dtype, one.device, one.untyped_storage().nbytes())
            for one in outcomes()
        ]

    with metering():
        straight = forms()
    with FakeTensorMode():
        assert straight == forms()


def test_attention_in_half_precision_is_flash_and_keeps_no_square():
    with metering() as meter:
        q = torch.zeros(1, 2, 4096, 64, dtype=torch.bfloat16, requires_grad=True)
        F.scaled_dot_product_attention(q, q, q).sum().backward()
    count = meter.count()
    assert count.attention_flops == 3.5 * 4 * 2 * 4096 * 4096 * 64  # two products forward, five backward
    assert count.peak_bytes < 30 * q.numel()  # the square alone would be 64 MB


@pytest.mark.parametrize("tokens, copies", [(2048, 1), (2049, 2)])
def test_attention_under_a_mask_holds_it_in_full_and_again_where_its_rows_begin_anywhere(tokens, copies):
    with metering() as meter:
        q = torch.zeros(1, 2, tokens, 8, dtype=torch.bfloat16)
        F.scaled_dot_product_attention(q, q, q, attn_mask=torch.zeros(1, 1, tokens, tokens, dtype=torch.bfloat16))
        plain = meter.count().peak_bytes
        F.scaled_dot_product_attention(q, q, q, attn_mask=torch.ones(1, 1, tokens, tokens, dtype=torch.bool))
    assert plain == pytest.approx(2 * copies * tokens**2, rel=0.05)
    assert meter.count().peak_bytes - plain == pytest.approx(tokens**2, rel=0.05)  # the mask itself


def test_a_product_of_two_types_fails_in_these_tests():
    layer, hidden = nn.Linear(8, 8).bfloat16(), torch.zeros(4, 8)
    with pytest.raises(TypeError, match="mm.* of torch.bfloat16, torch.float32"), metering():
        layer(hidden)
    with metering(), torch.autocast("cpu", torch.bfloat16):
        layer(hidden)


def test_autocast_has_the_gpu_s_list():
    with metering(), torch.autocast("cpu", torch.bfloat16):
        hidden = torch.zeros(4, 8, dtype=torch.bfloat16)
        assert F.layer_norm(hidden, (8,)).dtype == torch.float32
        assert (hidden @ hidden.T).dtype == torch.bfloat16
    assert F.layer_norm(torch.zeros(4, 8, dtype=torch.bfloat16), (8,)).dtype == torch.bfloat16


def test_nothing_stays_replaced():
    before = (F.scaled_dot_product_attention, F.layer_norm, torch.Tensor.tolist, nn.Module._apply)
    with pytest.raises(ZeroDivisionError), metering():
        raise ZeroDivisionError
    assert (F.scaled_dot_product_attention, F.layer_norm, torch.Tensor.tolist, nn.Module._apply) == before


def test_counts_add_up():
    one = Count(matmul_flops=3.0, peaks={"run": {"weights": 10.0, "activations": 1.0}})
    two = Count(matmul_flops=5.0, peaks={"run": {"weights": 10.0, "activations": 2.0}})
    four = linear([(-2.0, one), (3.0, two)])
    assert four.matmul_flops == 9.0 and four.peak == {"weights": 10.0, "activations": 4.0}
