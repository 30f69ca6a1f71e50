"""The policy of vLLM on Ascend: its tables, its silent rule, the process that it plans in."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import multiprocessing
import types

import numpy as np
import pytest
from conftest import heaviest, loads, module, received

from eplb_wgpu import InvalidError
from eplb_wgpu.ascend import Policy, keeps_rule

LAYERS, DEVICES, SLOTS, EXPERTS = 5, 8, 5, 32


def first_table() -> np.ndarray:
    """Four experts a device in order, and one more of the next device's."""
    rows = [[*range(4 * d, 4 * d + 4), (4 * d + 4) % EXPERTS] for d in range(DEVICES)]
    return np.tile(np.array(rows), (LAYERS, 1, 1))


def workload(table: np.ndarray, logical: np.ndarray) -> np.ndarray:
    """The load of each slot, where the replicas of an expert serve equal parts."""
    out = np.zeros(table.shape, dtype=np.int64)
    for layer, ids in enumerate(table):
        counts = np.bincount(ids.ravel(), minlength=EXPERTS)
        out[layer] = (logical[layer] // counts)[ids]
    return out


def test_a_loop_keeps_the_rule_and_gets_better() -> None:
    table, logical = first_table(), loads(LAYERS, EXPERTS)
    first = workload(table, logical).sum(axis=2).max(axis=1).sum()
    for _ in range(12):
        changed, priority, new = Policy().rebalance_experts(table, workload(table, logical))
        assert isinstance(new, list) and np.array(new).shape == table.shape
        new = np.array(new)
        assert changed == int((new != table).any())
        assert sorted(priority) == list(range(LAYERS))
        changes = [bool((new[at] != table[at]).any()) for at in priority]
        assert changes == sorted(changes, reverse=True)
        # The rule as that program has it.
        for before, after in zip(table, new, strict=True):
            assert set(after.ravel()) == set(range(EXPERTS))
            for old_device, new_device in zip(before, after, strict=True):
                assert len(set(new_device)) == SLOTS
                kept = [at for at, e in enumerate(new_device) if e in old_device]
                assert all(old_device[at] == new_device[at] for at in kept)
        assert (new != table).sum() <= 0.1 * new.size
        table = new
    assert workload(table, logical).sum(axis=2).max(axis=1).sum() < 0.75 * first


def ratio(table: np.ndarray, logical: np.ndarray) -> float:
    """The load of the heaviest device over the mean, on average over the layers."""
    layers, devices, slots = table.shape
    most = heaviest(logical, table.reshape(layers, devices * slots), devices)
    return float((most * devices / logical.sum(axis=1)).mean())


def test_a_step_is_as_even_as_that_program_s_own_test_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, devices, slots, experts = 12, 32, 9, 256
    random = np.random.default_rng(0)
    extra = random.integers(0, experts, (layers, devices * slots - experts))
    rows = np.concatenate([np.tile(np.arange(experts), (layers, 1)), extra], axis=1)
    table = random.permuted(rows, axis=1).reshape(layers, devices, slots)
    work = (random.random((100, layers, devices, slots)) ** 10 * 999 + 1).astype(np.int64)
    logical = np.zeros((layers, experts), dtype=np.int64)
    np.add.at(logical, (np.arange(layers)[:, None, None], table), work.sum(axis=0))
    assert ratio(table, logical) > 1.13

    def planned(loads: np.ndarray) -> tuple[float, int]:
        new = np.array(Policy().rebalance_experts(table, loads)[2])
        return ratio(new, logical), received(table.reshape(layers, -1), new.reshape(layers, -1), devices)

    # An expert twice on a device must go whatever the limit says.
    twice = sum(slots - len(set(held)) for held in table.reshape(-1, slots))
    of_steps, moved = planned(work)
    assert of_steps < 1.1 and moved <= 0.1 * table.size + twice
    assert planned(work.sum(axis=0))[0] < 1.02
    monkeypatch.setenv("EPLB_WGPU_MAX_MOVES", "5%")
    assert planned(work)[0] > of_steps


def test_steps_and_slots_that_hold_nothing() -> None:
    table = first_table()
    work = np.stack([workload(table, loads(LAYERS, EXPERTS, seed)) for seed in range(20)])
    changed, _, new = Policy().rebalance_experts(table, work)
    assert changed == 1
    table[1, 2, 4] = -1
    _, _, new = Policy().rebalance_experts(table, work)
    assert (np.array(new)[1] == table[1]).all() and (np.array(new) != table).any()
    table[:, 2, 4] = -1
    assert Policy().rebalance_experts(table, work)[0] == 0
    for bad, said in [
        ((table[0], work), r"current_expert_table of shape \[8, 5\]"),
        ((table, work[0, :2]), r"expert_workload of shape \[2, 8, 5\]"),
    ]:
        with pytest.raises(InvalidError, match=said):
            Policy().rebalance_experts(*bad)


def test_layers_that_cannot_keep_the_rule_stay(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EPLB_WGPU_MAX_MOVES", "100%")
    # Three experts in two devices of four slots: one is twice on a device whatever is done, and 2 is the busy one.
    table = np.array([[[0, 1, 2, 0], [0, 1, 0, 1]]])
    changed, _, new = Policy().rebalance_experts(table, np.where(table == 2, 900, 1))
    assert (changed, new) == (0, table.tolist())
    assert "layers [0] stay as they are" in caplog.text


def test_the_rule_is_theirs() -> None:
    old = np.array([[0, 1, 2], [2, 3, 4]])
    assert keeps_rule(old, old)
    assert keeps_rule(old, np.array([[0, 1, 3], [2, 3, 4]]))
    for broken in ([[0, 1, 1], [2, 3, 4]], [[1, 0, 2], [2, 3, 4]], [[0, 1, 3], [1, 3, 4]]):
        assert not keeps_rule(old, np.array(broken)), broken


def _plan_in_a_child(policy: Policy, table: np.ndarray, work: np.ndarray, queue: multiprocessing.Queue) -> None:
    queue.put(policy.rebalance_experts(table, work)[2])


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_it_plans_in_the_process_that_it_is_handed_to(method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    context = multiprocessing.get_context(method)
    table = first_table()
    work = workload(table, loads(LAYERS, EXPERTS))
    wanted = Policy().rebalance_experts(table, work)[2]
    queue = context.Queue()
    child = context.Process(target=_plan_in_a_child, args=(Policy(), table, work, queue))
    child.start()
    try:
        assert queue.get(timeout=60) == wanted
    finally:
        child.join(timeout=60)
    assert child.exitcode == 0


def test_it_takes_the_place_of_number_1(monkeypatch: pytest.MonkeyPatch) -> None:
    class PolicyFactory:
        @staticmethod
        def generate_policy(policy_type: int) -> object:
            return types.SimpleNamespace(kind=policy_type)

    factory = module(
        monkeypatch, "vllm_ascend.eplb.core.policy.policy_factory", PolicyFactory=PolicyFactory
    ).PolicyFactory
    spec = importlib.machinery.ModuleSpec("vllm_ascend", None)
    monkeypatch.setattr(__import__("vllm_ascend"), "__spec__", spec)
    entry = {e.name: e for e in importlib.metadata.entry_points(group="vllm.general_plugins")}["eplb_wgpu_ascend"]
    for _ in range(2):
        entry.load()()
    assert isinstance(factory.generate_policy(1), Policy)
    assert [factory.generate_policy(kind).kind for kind in (0, 2, 3)] == [0, 2, 3]


def test_nothing_happens_without_vllm_ascend() -> None:
    entry = {e.name: e for e in importlib.metadata.entry_points(group="vllm.general_plugins")}["eplb_wgpu_ascend"]
    assert entry.load()() is None
