"""Tensors in, tensors out; runs where torch is installed."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import loads, start_map

from eplb_wgpu import InvalidError, rebalance_experts, sglang, vllm
from eplb_wgpu.ascend import Policy

torch = pytest.importorskip("torch")


def test_tensors_of_any_kind_give_tensors() -> None:
    weight = torch.from_numpy(loads(2, 16) % 100)
    wanted, _, _ = rebalance_experts(weight.numpy(), 24, 1, 1, 4)
    kinds = [torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.uint8, torch.int64, torch.float64]
    for kind in kinds:
        given = weight.to(kind)
        maps = rebalance_experts(given.t().contiguous().t(), 24, 1, 1, 4)
        assert all(isinstance(m, torch.Tensor) and m.dtype == torch.int64 and m.device.type == "cpu" for m in maps)
        # 100 has 7 bits: every kind holds the counts, and so gives the same plan.
        assert (maps[0].numpy() == wanted).all(), kind
    # Sparse, strided with gaps, and a view that is negated only when it is read.
    wide = torch.zeros(4, 32)
    wide[::2, ::2] = weight
    negated = torch.complex(torch.zeros(2, 16), -weight.float()).conj().imag
    for given in [weight.to_sparse(), wide[::2, ::2], negated]:
        assert (rebalance_experts(given, 24, 1, 1, 4)[0].numpy() == wanted).all(), given.layout
    for given in [torch.empty(2, 16, device="meta"), torch.ones(2, 16, dtype=torch.complex64)]:
        with pytest.raises(InvalidError, match="weight of dtype"):
            rebalance_experts(given, 24, 1, 1, 4)
    with_gradient = weight.float().requires_grad_()
    assert (rebalance_experts(with_gradient, 24, 1, 1, 4)[0].numpy() == wanted).all()


def test_the_engines_get_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPLB_WGPU_MAX_MOVES", "100%")
    weight = torch.from_numpy(loads(2, 16))
    old = torch.from_numpy(start_map(2, 16, 24))
    new = vllm.rebalance_experts(weight, 24, 1, 1, 4, old)
    assert isinstance(new, torch.Tensor) and new.dtype == torch.int64 and new.shape == (2, 24)
    maps = sglang.rebalance_experts(weight[None], 24, 6, None, 1, "deepseek", running=old)
    assert all(isinstance(m, torch.Tensor) and m.dtype == torch.int64 for m in maps)
    table = torch.arange(16).reshape(1, 4, 4)
    changed, priority, new_table = Policy().rebalance_experts(table, torch.arange(16).reshape(1, 4, 4))
    assert changed == 1 and len(priority) == 1
    assert sorted(np.array(new_table).ravel()) == list(range(16))
