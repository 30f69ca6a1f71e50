"""Planners, plans, plans over time."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from conftest import drifted, heaviest, keeps_slots, loads, received, start_map

import eplb_wgpu
from eplb_wgpu import Cluster, InvalidError, Planner, Rebalancer, check, replay


def test_a_plan_tells_what_it_is() -> None:
    weight, cluster = loads(4, 32), Cluster(48, 4, 2, 8)
    plan = Planner().plan(weight, cluster, seed=3)
    assert plan.gpu_loads.shape == (4, 8)
    assert np.allclose(plan.gpu_loads.sum(axis=1), weight.sum(axis=1))
    assert np.allclose(plan.gpu_loads.max(axis=1), heaviest(weight, plan.physical_to_logical, 8))
    quality = plan.quality
    assert np.allclose(quality.max_gpu_load, plan.gpu_loads.max(axis=1))
    assert np.isclose(plan.balancedness, plan.gpu_loads.mean(axis=1).sum() / plan.gpu_loads.max(axis=1).sum())
    assert (quality.lower_bound <= quality.max_gpu_load * (1 + 1e-6)).all() and (quality.lower_bound > 0).all()
    assert quality.same_gpu_duplicates == quality.duplicates_by_layer.sum() == 0
    assert plan.cluster == cluster and plan.cluster.policy == "hierarchical"
    assert plan.moves is None and len(plan.stops) == 4 and plan.warnings == []
    assert plan.fingerprint == Planner(threads=1).plan(weight, cluster, seed=3).fingerprint
    assert len(plan.fingerprint) == 16 and plan.fingerprint in repr(plan)
    with pytest.raises(ValueError, match="read-only"):
        plan.physical_to_logical[0, 0] = 1


def test_replicas_are_foreign_where_they_may_be() -> None:
    weight, cluster = loads(3, 64), Cluster(80, 8, 2, 8)
    planner = Planner(threads=2)
    home, foreign = planner.plan(weight, cluster), planner.plan(weight, cluster, max_foreign=4)
    assert home.quality.foreign_replicas == 0 < foreign.quality.foreign_replicas <= 12
    assert foreign.balancedness > home.balancedness
    assert planner.check(weight, cluster, foreign, max_foreign=4).balancedness == foreign.balancedness
    few = planner.plan(weight, cluster, max_foreign=4, foreign_target=1.1)
    assert few.quality.foreign_replicas <= foreign.quality.foreign_replicas
    with pytest.raises(InvalidError, match="which is in node"):
        planner.check(weight, cluster, foreign)
    with pytest.raises(InvalidError, match="max_foreign 8 is not less than the 8 experts of a group"):
        planner.plan(weight, cluster, max_foreign=8)
    with pytest.raises(InvalidError, match="foreign_target 0.9 is not a number from 1 to 4000"):
        planner.plan(weight, cluster, max_foreign=4, foreign_target=0.9)


def test_traffic_stays_where_copies_are_spread() -> None:
    weight, nodes = loads(2, 64), Cluster(72, 1, 4, 8)
    spread, before = Planner().plan(weight, nodes), Planner().plan(weight, Cluster(72, 1, 1, 8))
    nearest, equal = spread.traffic(), spread.traffic("equal")
    assert nearest.dispatch == "nearest" and np.isclose(equal.in_node, 0.25) and nearest.in_node > 0.27
    assert nearest.on_gpu > equal.on_gpu > 0 and nearest.balancedness > 0.99
    assert np.allclose(equal.gpu_loads, spread.gpu_loads)
    assert spread.balancedness > before.balancedness * (1 - 2e-4)
    sources = np.zeros((8, 2, 64))
    sources[3] = weight
    sent = spread.traffic("nearest", sources)
    assert np.allclose(sent.gpu_loads.sum(axis=1), weight.sum(axis=1)) and sent.in_node > 0.25
    assert Planner().plan(weight, nodes, dispatch="nearest").traffic().balancedness > 0.99
    with pytest.raises(InvalidError, match="dispatch near is not one of equal, nearest, own-gpu"):
        spread.traffic("near")  # type: ignore[arg-type]
    with pytest.raises(InvalidError, match="number of sources 2 is not num_gpus 8"):
        spread.traffic("nearest", sources[:2])
    with pytest.raises(InvalidError, match=r"sources of shape .* is not \[num_gpus, layers, experts\]"):
        spread.traffic("nearest", weight)


def test_clusters_are_values() -> None:
    cluster = Cluster(40, 1, 1, 8, 6)
    assert (cluster.num_slots, cluster.slots_per_gpu, cluster.num_replicas) == (48, 6, 40)
    assert pickle.loads(pickle.dumps(cluster)) == cluster != Cluster(48, 1, 1, 8)
    slow = Cluster(40, 1, 1, 8, 6, gpu_speeds=[2, 2, 2, 2, 2, 2, 1, 1])
    assert slow.gpu_speeds == [1.0] * 6 + [0.5] * 2 and cluster.gpu_speeds == [1.0] * 8
    assert pickle.loads(pickle.dumps(slow)) == slow != cluster
    with pytest.raises(InvalidError, match="gpu_speeds -1 of GPU 0"):
        Cluster(40, 1, 1, 8, gpu_speeds=[-1] * 8)
    plan = Planner().plan(loads(1, 32), cluster)
    assert (plan.physical_to_logical == -1).sum() == 8


def test_a_gpu_that_becomes_slow_or_goes_is_relieved_in_few_moves() -> None:
    weight, planner = loads(3, 32), Planner()
    running = planner.plan(weight, Cluster(40, 1, 1, 8))
    slow = Cluster(40, 1, 1, 8, gpu_speeds=[1, 1, 1, 0.5, 1, 1, 1, 1])
    before = planner.check(weight, slow, running).balancedness
    new = planner.replan(weight, slow, running, max_moves=12, min_gain=0)
    assert new.moves is not None and 0 < new.moves.received <= 12
    assert new.balancedness == planner.check(weight, slow, new).balancedness > before * 1.05
    # A GPU of speed 0 is gone: its slots are empty, and every expert has a replica on another GPU.
    gone = Cluster(35, 1, 1, 8, 5, gpu_speeds=[1, 1, 1, 0, 1, 1, 1, 1])
    rebalancer = Rebalancer(gone, planner=planner)
    rebalancer.observe(weight)
    for plan in [planner.replan(weight, gone, running, max_moves=0), rebalancer.propose().plan]:
        assert (plan.physical_to_logical[:, 15:20] == -1).all() and (plan.gpu_loads[:, 3] == 0).all()
        assert (plan.replica_counts >= 1).all()


def test_one_plan_for_several_windows() -> None:
    windows = np.stack([loads(3, 32, seed) for seed in range(3)])
    cluster = Cluster(40, 1, 1, 8)
    plan = Planner().plan(windows, cluster, window_weights=[1, 1, 2])
    worst = [check(window, cluster, plan).balancedness for window in windows]
    alone = Planner().plan(windows[0], cluster)
    assert min(worst) > min(check(window, cluster, alone).balancedness for window in windows)
    with pytest.raises(InvalidError, match="number of windows 17 is not between 1 and 16"):
        Planner().plan(np.ones((17, 1, 4)), cluster)
    with pytest.raises(InvalidError, match="number of weights 2 is not the number of windows 3"):
        Planner().plan(windows, cluster, window_weights=[1, 2])
    with pytest.raises(InvalidError, match=r"weight of shape .* is not \[windows, layers, experts\]"):
        Planner().plan(windows[0], cluster, window_weights=[1])


def test_replan_keeps_its_limits() -> None:
    weight, cluster = loads(4, 32), Cluster(48, 1, 1, 8)
    planner = Planner()
    before = planner.plan(weight, cluster)
    now = drifted(weight, 1)
    after = planner.replan(now, cluster, before, max_moves=9, min_gain=0.01)
    assert after.moves is not None
    found = received(before.physical_to_logical, after.physical_to_logical, 8)
    assert 0 < after.moves.received == found == after.moves.received_by_layer.sum() <= 9
    assert (after.moves.repairs, after.moves.lost) == (0, [])
    assert keeps_slots(before.physical_to_logical, after.physical_to_logical, 8)
    assert after.balancedness > check(now, cluster, before).balancedness
    assert sorted(after.moves.order) == list(np.flatnonzero(after.moves.received_by_layer))
    still = planner.replan(now, cluster, before.physical_to_logical, max_moves=0)
    assert still.fingerprint == before.fingerprint
    for limits, said in [
        ({"max_moves": -1}, "max_moves -1 is not a whole number"),
        ({"max_moves_share": 1.5}, "max_moves_share 1.5 is not a number from 0 to 1"),
        ({"min_gain": "a"}, "min_gain a is not a number from 0 to 1"),
    ]:
        with pytest.raises(InvalidError, match=said):
            planner.replan(now, cluster, before, **limits)


@pytest.mark.parametrize(("groups", "nodes"), [(1, 1), (8, 4)])
def test_replan_starts_from_any_map(groups: int, nodes: int) -> None:
    experts, gpus = 32, 8
    weight, cluster = loads(3, experts), Cluster(48, groups, nodes, gpus)
    full = start_map(3, experts, 48)
    new_slots = full.copy()
    new_slots[:, 40:] = -1
    foreign = full.copy()
    foreign[0, :3] = [99, -7, 2**40]
    maps = {
        "start": full,
        "fewer columns": full[:, :36],
        "more columns": np.pad(full, ((0, 0), (0, 12)), constant_values=5),
        "new slots": new_slots,
        "foreign ids": foreign,
        "nothing": np.full((3, 48), -1),
        "one expert": np.zeros((3, 48), dtype=int),
    }
    for name, old in maps.items():
        plan = Planner().replan(weight, cluster, old)
        # The judge shares no code with the planner, nor with what mends maps.
        quality = check(weight, cluster, plan)
        assert quality.same_gpu_duplicates == 0, name
        assert plan.moves is not None
        fitted = np.full((3, 48), -1)
        fitted[:, : min(48, old.shape[1])] = old[:, :48]
        assert plan.moves.received == received(fitted, plan.physical_to_logical, gpus), name
        # An expert that is given up for its group, and comes back, takes any slot.
        assert nodes > 1 or keeps_slots(fitted, plan.physical_to_logical, gpus), name
        lost = [(at, e) for at, row in enumerate(fitted) for e in range(experts) if e not in row]
        assert plan.moves.lost == lost, name


def test_what_can_stay_stays() -> None:
    weight, cluster = np.ones((2, 16), dtype=int), Cluster(32, 1, 1, 8)
    # Two more GPUs for loads that are even already: only the new slots receive.
    old = np.pad(start_map(2, 16, 24), ((0, 0), (0, 8)), constant_values=-1)
    plan = Planner().replan(weight, cluster, old)
    assert plan.moves is not None and plan.moves.received == plan.moves.repairs == 16
    assert (plan.physical_to_logical[:, :24] == old[:, :24]).all()


def test_a_map_that_breaks_a_rule_is_named_by_its_place() -> None:
    weight, cluster = loads(2, 8), Cluster(8, 1, 1, 4)
    good = start_map(2, 8, 8)
    for entry, said in [(8, "slot 3 holds 8, not an expert in 0..8 or -1"), (0, "expert 3 has no replica")]:
        bad = good.copy()
        bad[1, 3] = entry
        with pytest.raises(InvalidError, match=f"plan of layer 1: {said}"):
            check(weight, cluster, bad)
    with pytest.raises(InvalidError, match="dtype float64 is not of whole numbers"):
        check(weight, cluster, good * 1.0)
    with pytest.raises(InvalidError, match="layers of previous 1 is not that of the loads, 2"):
        Planner().replan(weight, cluster, good[:1])


def test_a_loop_of_windows() -> None:
    cluster = Cluster(40, 1, 1, 8)
    rebalancer = Rebalancer(cluster, "scenarios", max_moves_share=0.1)
    with pytest.raises(InvalidError, match="windows observed 0"):
        rebalancer.propose()
    with pytest.raises(InvalidError, match="windows observed 0"):
        rebalancer.apply(start_map(2, 32, 40))
    weight, running = loads(2, 32), None
    for seed in range(6):
        rebalancer.observe(weight)
        proposal = rebalancer.propose()
        assert proposal.strategy == "scenarios"
        if running is not None:
            assert proposal.plan.moves is not None
            assert received(running, proposal.plan.physical_to_logical, 8) == proposal.plan.moves.received <= 8
        running = proposal.plan.physical_to_logical
        rebalancer.apply(proposal.plan)
        weight = drifted(weight, seed)
    # A map that does not fit can be running too.
    rebalancer.apply(start_map(2, 32, 36))
    assert rebalancer.propose().plan.moves is not None
    with pytest.raises(InvalidError, match="layers of the window 3 is not as before, 2"):
        rebalancer.observe(loads(3, 32))
    with pytest.raises(InvalidError, match="strategy best is not scenarios or forecast"):
        Rebalancer(cluster, "best")
    with pytest.raises(InvalidError, match="option window is not one of strategy, scenario_windows"):
        Rebalancer(cluster, window=3)


def test_a_replay_scores_every_strategy() -> None:
    windows = [loads(2, 32)]
    for seed in range(5):
        windows.append(drifted(windows[-1], seed))
    rows = replay(np.stack(windows), Cluster(40, 1, 1, 8), strategies=["scenarios", "forecast"], max_moves=4, scenario_windows=3)
    assert [row.name for row in rows] == ["scenarios", "forecast", "oracle", "greedy", "never move"]
    by_name = {row.name: row for row in rows}
    assert all(row.balancedness.shape == row.replica_balancedness.shape == (5,) for row in rows)
    assert by_name["oracle"].balancedness.mean() > by_name["never move"].balancedness.mean()
    assert (by_name["scenarios"].moved * 80 <= 4).all()
    with pytest.raises(InvalidError, match="number of windows 1 is not at least 2"):
        replay(np.stack(windows[:1]), Cluster(40, 1, 1, 8))


def test_names_of_the_package() -> None:
    assert {"default", "fast", "thorough", "scenarios"} <= set(eplb_wgpu.presets())
    assert all(isinstance(name, str) for name in eplb_wgpu.devices())
    assert eplb_wgpu.__version__[0].isdigit()
    assert all(hasattr(eplb_wgpu, name) for name in eplb_wgpu.__all__)
