"""The policy of vLLM: its interface, and the maps that a server goes through."""

from __future__ import annotations

import importlib.metadata
import logging
import re
import sys

import numpy as np
import pytest
from conftest import drifted, heaviest, keeps_slots, loads, module, received, start_map

from eplb_wgpu import PLAN_VERSION, InvalidError
from eplb_wgpu import vllm as door

LAYERS, EXPERTS, GPUS, PER_GPU = 6, 32, 8, 6
SLOTS = GPUS * PER_GPU


def whole_groups(row: np.ndarray, groups: int, nodes: int) -> bool:
    """Whether every group is in one node."""
    of = row // (EXPERTS // groups)
    parts = [set(part) for part in np.split(of, nodes)]
    return sum(len(part) for part in parts) == groups


def assert_served(new: np.ndarray, slots: int = SLOTS) -> None:
    assert new.shape == (LAYERS, slots) and new.dtype == np.int64
    assert all(set(row) == set(range(EXPERTS)) for row in new)


def test_a_server_s_life_within_the_bound() -> None:
    weight = loads(LAYERS, EXPERTS)
    old = start_map(LAYERS, EXPERTS, SLOTS)
    # The dry run, before there are loads.
    new = door.rebalance_experts(np.zeros_like(weight), SLOTS, 1, 1, GPUS, old)
    assert (new == old).all()
    first = heaviest(weight, old, GPUS).sum()
    for seed in range(12):
        new = door.rebalance_experts(weight, SLOTS, 1, 1, GPUS, old)
        assert_served(new)
        assert received(old, new, GPUS) <= 0.05 * new.size
        assert keeps_slots(old, new, GPUS)
        assert (heaviest(weight, new, GPUS) <= heaviest(weight, old, GPUS) * (1 + 1e-6)).all()
        old, weight = new, drifted(weight, seed, 0.02)
    assert heaviest(weight, new, GPUS).sum() < 0.7 * first


def test_groups_are_brought_together_within_the_bound() -> None:
    weight = loads(LAYERS, EXPERTS)
    old = start_map(LAYERS, EXPERTS, SLOTS)
    together = []
    for step in range(40):
        new = door.rebalance_experts(weight, SLOTS, 8, 4, GPUS, old)
        assert_served(new)
        assert keeps_slots(old, new, GPUS)
        # A layer's groups take more than the bound of so small a model: then it is one layer at a step.
        layers = sum((before != after).sum() > 10 for before, after in zip(old, new, strict=True))
        assert received(old, new, GPUS) <= 0.05 * new.size or layers <= 1
        together.append(sum(whole_groups(row, 8, 4) for row in new))
        old = new
    assert together == sorted(together) and together[0] in (0, 1) and together[-1] == LAYERS


def test_a_large_bound_brings_all_together_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPLB_WGPU_MAX_MOVES", "100%")
    weight, old = loads(LAYERS, EXPERTS), start_map(LAYERS, EXPERTS, SLOTS)
    new = door.rebalance_experts(weight, SLOTS, 8, 4, GPUS, old)
    assert sum(whole_groups(row, 8, 4) for row in new) >= LAYERS // 2
    assert keeps_slots(old, new, GPUS)
    new = door.rebalance_experts(weight, SLOTS, 8, 4, GPUS, new)
    assert all(whole_groups(row, 8, 4) for row in new)


def test_scale_up_and_down() -> None:
    weight = loads(LAYERS, EXPERTS)
    old = door.rebalance_experts(weight, SLOTS, 1, 1, GPUS)
    # Two GPUs more: their slots hold nothing, and are filled whatever the bound says.
    wide = np.pad(old, ((0, 0), (0, 2 * PER_GPU)), constant_values=-1)
    up = door.rebalance_experts(weight, SLOTS + 2 * PER_GPU, 1, 1, GPUS + 2, wide)
    assert_served(up, SLOTS + 2 * PER_GPU)
    new_slots = LAYERS * 2 * PER_GPU
    assert new_slots <= received(wide, up, GPUS + 2) <= new_slots + 0.05 * up.size
    assert keeps_slots(wide, up, GPUS + 2)
    # Three GPUs less: the last columns go, and with them the last replica of some experts.
    left = SLOTS - PER_GPU
    down = door.rebalance_experts(weight, left, 1, 1, GPUS - 1, up)
    assert_served(down, left)
    lost = sum(len(set(range(EXPERTS)) - set(row[:left])) for row in up)
    assert received(up[:, :left], down, GPUS - 1) <= lost + 0.05 * down.size
    assert keeps_slots(up[:, :left], down, GPUS - 1)


def test_the_bound_is_the_environment_s(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, old = loads(LAYERS, EXPERTS), start_map(LAYERS, EXPERTS, SLOTS)
    for text, most in [("7", 7), ("0", 0), ("2.5%", 7), ("0%", 0)]:
        monkeypatch.setenv("EPLB_WGPU_MAX_MOVES", text)
        found = received(old, door.rebalance_experts(weight, SLOTS, 1, 1, GPUS, old), GPUS)
        assert found <= most and (found > 0) == (most > 0), text
    # Beyond what a loop of the library allows by itself, 15 %.
    monkeypatch.setenv("EPLB_WGPU_MAX_MOVES", "60")
    found = received(old, door.rebalance_experts(weight, SLOTS, 1, 1, GPUS, old), GPUS)
    assert 0.15 * old.size < found <= 60
    for text in ("-1", "many", "120%", "5 slots"):
        monkeypatch.setenv("EPLB_WGPU_MAX_MOVES", text)
        with pytest.raises(InvalidError, match=f"EPLB_WGPU_MAX_MOVES {text} is neither"):
            door.rebalance_experts(weight, SLOTS, 1, 1, GPUS, old)


def test_threads_and_kinds_of_numbers_do_not_change_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, old = loads(LAYERS, EXPERTS), start_map(LAYERS, EXPERTS, SLOTS)
    wanted = door.rebalance_experts(weight, SLOTS, 8, 4, GPUS, old).tobytes()
    for threads, kind in [("1", np.int32), ("2", np.float64), ("7", np.int64)]:
        monkeypatch.setenv("EPLB_WGPU_THREADS", threads)
        found = door.rebalance_experts(weight.astype(kind), SLOTS, 8, 4, GPUS, old.astype(np.int32))
        assert found.tobytes() == wanted


def test_each_plan_is_logged_with_version_and_fingerprint(caplog: pytest.LogCaptureFixture) -> None:
    weight, old = loads(LAYERS, EXPERTS), start_map(LAYERS, EXPERTS, SLOTS)
    with caplog.at_level(logging.INFO, logger="vllm"):
        for _ in range(2):
            door.rebalance_experts(weight, SLOTS, 1, 1, GPUS, old)
        door.rebalance_experts(weight, SLOTS, 1, 1, GPUS)
    version = rf"eplb-wgpu (\S+), plan version {PLAN_VERSION}: "
    pattern = version + r"plan ([0-9a-f]{16}) of 6 layers x 32 experts on 8 GPUs: .* of 288 slots move"
    found = [re.match(pattern, record.getMessage()) for record in caplog.records]
    assert all(found) and len(found) == 3
    versions, prints = zip(*(match.groups() for match in found if match), strict=True)
    assert set(versions) == {importlib.metadata.version("eplb-wgpu")}
    assert prints[0] == prints[1] != prints[2]


def test_shapes_that_do_not_fit_are_refused_by_name() -> None:
    weight = loads(LAYERS, EXPERTS)
    with pytest.raises(InvalidError, match="num_replicas 47 is not a multiple of num_gpus 8"):
        door.rebalance_experts(weight, 47, 1, 1, GPUS)
    with pytest.raises(InvalidError, match="num_replicas 24 is less than the number of experts 32"):
        door.rebalance_experts(weight, 24, 1, 1, GPUS)


def test_it_takes_the_place_of_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    class AbstractEplbPolicy:
        pass

    class DefaultEplbPolicy(AbstractEplbPolicy):
        pass

    policies = {"default": DefaultEplbPolicy}
    module(
        monkeypatch, "vllm.distributed.eplb.policy", AbstractEplbPolicy=AbstractEplbPolicy, EPLB_POLICIES=policies
    )
    entry = {e.name: e for e in importlib.metadata.entry_points(group="vllm.general_plugins")}["eplb_wgpu"]
    for _ in range(2):
        entry.load()()
    assert set(policies) == {"default"}
    policy = policies["default"]
    assert issubclass(policy, AbstractEplbPolicy) and policy is not DefaultEplbPolicy
    weight, old = loads(LAYERS, EXPERTS), start_map(LAYERS, EXPERTS, SLOTS)
    new = policy.rebalance_experts(weight, SLOTS, 1, 1, GPUS, old)
    assert (new == door.rebalance_experts(weight, SLOTS, 1, 1, GPUS, old)).all()
    assert policies["default"] is policy


def test_a_vllm_without_policies_is_left_alone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Also where it is installed.
    monkeypatch.setitem(sys.modules, "vllm", None)
    door.register()
    assert "has no policies" in caplog.text
