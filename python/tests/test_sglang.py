"""SGLang's functions: their interface, dead ranks, the map that runs."""

from __future__ import annotations

import enum
import importlib.metadata
import sys
import types

import numpy as np
import pytest
from conftest import heaviest, loads, module, received, start_map

from eplb_wgpu import InvalidError
from eplb_wgpu import sglang as door

LAYERS, EXPERTS, GPUS, PER_GPU = 4, 32, 8, 6
SLOTS = GPUS * PER_GPU


class EplbAlgorithm(enum.Enum):
    """As SGLang names them."""

    deepseek = enum.auto()
    deepseek_hierarchical = enum.auto()
    elasticity_aware = enum.auto()
    elasticity_aware_hierarchical = enum.auto()


def steps(count: int = 20) -> np.ndarray:
    return np.stack([loads(LAYERS, EXPERTS, seed) for seed in range(count)])


def plan(tokens: np.ndarray, algorithm: object = EplbAlgorithm.deepseek, **more: object) -> tuple:
    return door.rebalance_experts(tokens, SLOTS, PER_GPU, 8, 4, algorithm, **more)


def assert_maps_agree(phy2log: np.ndarray, log2phy: np.ndarray, counts: np.ndarray, dead: tuple = ()) -> None:
    assert phy2log.shape == (LAYERS, SLOTS) and counts.shape == (LAYERS, EXPERTS)
    assert log2phy.shape == (LAYERS, EXPERTS, counts.max())
    alive = np.array([slot // PER_GPU not in dead for slot in range(SLOTS)])
    for layer in range(LAYERS):
        for expert in range(EXPERTS):
            slots = np.flatnonzero((phy2log[layer] == expert) & alive)
            assert len(slots) == counts[layer, expert] >= 1
            listed = log2phy[layer, expert]
            assert (listed[: len(slots)] == slots).all() and (listed[len(slots) :] == -1).all()
    assert (phy2log[:, ~alive] == 0).all()


def test_the_names_of_algorithms_keep_their_meaning() -> None:
    flat = plan(steps())
    assert_maps_agree(*flat)
    hierarchical = plan(steps(), EplbAlgorithm.deepseek_hierarchical)
    assert_maps_agree(*hierarchical)
    groups = hierarchical[0].reshape(LAYERS, 4, -1) // 4
    assert all(len(set(node)) == 2 for layer in groups for node in layer)
    assert any(len(set(node)) > 2 for layer in flat[0].reshape(LAYERS, 4, -1) // 4 for node in layer)
    total = steps().sum(axis=0)
    assert heaviest(total, flat[0], GPUS).sum() <= heaviest(total, hierarchical[0], GPUS).sum()
    # The name alone will do, and 2-D counts, as at start.
    assert (plan(total, "deepseek")[0] == plan(total)[0]).all()
    assert door.rebalance_experts(total, SLOTS, PER_GPU, None, 4, "deepseek")[0].shape == (LAYERS, SLOTS)
    with pytest.raises(InvalidError, match="num_groups None is not a number"):
        door.rebalance_experts(total, SLOTS, PER_GPU, None, 4, "deepseek_hierarchical")


def test_a_plan_suits_all_windows() -> None:
    day, night = loads(LAYERS, EXPERTS, 1), loads(LAYERS, EXPERTS, 2)
    tokens = np.concatenate([np.tile(day, (8, 1, 1)), np.tile(night, (8, 1, 1))])
    both, _, _ = plan(tokens)
    of_sum, _, _ = plan(tokens.sum(axis=0))
    worst = [heaviest(window, both, GPUS).sum() for window in (day, night)]
    assert sum(worst) < sum(heaviest(window, of_sum, GPUS).sum() for window in (day, night))
    assert plan(np.zeros_like(tokens))[0].shape == (LAYERS, SLOTS)


def test_it_starts_from_the_map_that_runs() -> None:
    old = start_map(LAYERS, EXPERTS, SLOTS)
    new, _, _ = plan(steps(), running=old)
    assert 0 < received(old, new, GPUS) <= 0.05 * new.size
    # One of another shape, as after a change of the number of ranks, is taken as far as it goes.
    assert_maps_agree(*plan(steps(), running=old[:, : SLOTS - PER_GPU]))
    assert_maps_agree(*plan(steps(), running=old[:2]))


def test_dead_ranks_receive_nothing_and_every_expert_is_served() -> None:
    old = plan(steps())[0]
    alive = np.array([1, 1, 0, 1, 1, 1, 0, 1], dtype=np.int32)
    for algorithm in (EplbAlgorithm.elasticity_aware, EplbAlgorithm.elasticity_aware_hierarchical):
        maps = plan(steps(), algorithm, active_ranks=alive, running=old)
        assert_maps_agree(*maps, dead=(2, 6))
        living = np.repeat(alive, PER_GPU) != 0
        lost = sum(EXPERTS - len(set(row[living])) for row in old)
        moved = received(old[:, living], maps[0][:, living], 6)
        assert lost <= moved <= lost + 0.05 * living.sum() * LAYERS
    # The rank comes back: SGLang's map says expert 0 in all its slots, and it gets others.
    back = plan(steps(), EplbAlgorithm.elasticity_aware, active_ranks=np.ones(8), running=maps[0])
    assert_maps_agree(*back)
    assert all(len(set(row[12:18])) == PER_GPU for row in back[0])
    with pytest.raises(InvalidError, match="living GPUs 5 x 6 slots is less than the number of experts 32"):
        plan(steps(), EplbAlgorithm.elasticity_aware, active_ranks=np.arange(8) < 5)


def test_it_replaces_what_the_manager_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    def compute_algorithm(raw_algorithm: str, num_groups: int | None, num_nodes: int) -> EplbAlgorithm:
        return EplbAlgorithm["deepseek" if raw_algorithm == "auto" else raw_algorithm]

    algorithms = module(
        monkeypatch,
        "sglang.srt.eplb.eplb_algorithms",
        rebalance_experts=None,
        compute_algorithm=compute_algorithm,
        EplbAlgorithm=EplbAlgorithm,
    )
    running = types.SimpleNamespace(physical_to_logical_map_cpu=start_map(LAYERS, EXPERTS, SLOTS))
    module(
        monkeypatch, "sglang.srt.eplb.expert_location", get_global_expert_location_metadata=lambda: running
    )
    state = types.SimpleNamespace(active_ranks=np.arange(16) != 3)
    manager = types.SimpleNamespace(instance=lambda: state)
    module(monkeypatch, "sglang.srt.elastic_ep.elastic_ep", ElasticEPStateManager=manager)
    entry = {e.name: e for e in importlib.metadata.entry_points(group="sglang.srt.plugins")}["eplb_wgpu"]
    for _ in range(2):
        entry.load()()

    def as_the_manager_calls(name: str) -> tuple:
        return algorithms.rebalance_experts(
            tokens_per_expert=steps(),
            num_physical_experts=SLOTS,
            num_local_physical_experts=PER_GPU,
            num_groups=8,
            num_nodes=4,
            algorithm=algorithms.compute_algorithm(raw_algorithm=name, num_groups=8, num_nodes=4),
        )

    wanted = plan(steps(), running=running.physical_to_logical_map_cpu)
    for name in ("auto", "eplb_wgpu", "deepseek"):
        found = as_the_manager_calls(name)
        assert_maps_agree(*found)
        assert (found[0] == wanted[0]).all()
    with pytest.raises(KeyError):
        as_the_manager_calls("no such")
    assert_maps_agree(*as_the_manager_calls("elasticity_aware"), dead=(3,))
    state.active_ranks = np.ones(16)
    assert_maps_agree(*as_the_manager_calls("elasticity_aware"))


def test_a_sglang_without_algorithms_is_left_alone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Also where it is installed.
    monkeypatch.setitem(sys.modules, "sglang", None)
    door.register()
    assert "has no algorithms" in caplog.text
