"""DeepSeek's function: its contract, every kind of array, and what its errors say."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import heaviest, loads

import eplb_wgpu
from eplb_wgpu import InvalidError, rebalance_experts

# DeepSeek's own example, whose greedy plan has these heaviest GPUs.
EXAMPLE = np.array(
    [
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
    ]
)


def test_the_three_maps_agree_and_no_layer_is_worse_than_greedy() -> None:
    phy2log, log2phy, logcnt = rebalance_experts(EXAMPLE, 16, 4, 2, 8)
    assert phy2log.shape == (2, 16) and logcnt.shape == (2, 12)
    assert log2phy.shape == (2, 12, logcnt.max())
    assert phy2log.dtype == log2phy.dtype == logcnt.dtype == np.int64
    for layer in range(2):
        for expert in range(12):
            slots = np.flatnonzero(phy2log[layer] == expert)
            assert logcnt[layer, expert] == len(slots) >= 1
            padded = np.pad(slots, (0, log2phy.shape[2] - len(slots)), constant_values=-1)
            assert (log2phy[layer, expert] == padded).all()
    # Groups of three experts stay in a node of eight slots.
    groups = phy2log // 3
    assert all(set(row[:8]).isdisjoint(row[8:]) for row in groups)
    greedy = np.array(
        [
            [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
            [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
        ]
    )
    assert (heaviest(EXAMPLE, phy2log, 8) <= heaviest(EXAMPLE, greedy, 8)).all()


def test_any_dtype_and_layout_gives_the_same_plan() -> None:
    weight = loads(3, 32) % 100
    wanted, _, _ = rebalance_experts(weight, 40, 1, 1, 8)
    kinds = [weight.astype(t) for t in ("u1", "i2", "u4", "i8", "u8", "f4", "f8", ">f8", ">i4", "longdouble")]
    layouts = [
        np.asfortranarray(weight),
        np.repeat(weight, 2, axis=1)[:, ::2],
        weight[::-1][::-1],
        weight.tolist(),
        memoryview(weight),
    ]
    for given in kinds + layouts:
        found, _, _ = rebalance_experts(given, 40, 1, 1, 8)
        assert (found == wanted).all(), getattr(given, "dtype", type(given))
    found, _, _ = rebalance_experts(weight.astype("f2"), 40, 1, 1, 8)
    assert (found == wanted).all(), "half"
    assert rebalance_experts(weight > 50, 40, 1, 1, 8)[0].shape == (3, 40)


def test_what_comes_back_is_the_callers_to_change() -> None:
    for array in rebalance_experts(EXAMPLE, 16, 4, 2, 8):
        array[:] = 0


def test_loads_without_tokens_are_planned() -> None:
    phy2log, _, logcnt = rebalance_experts(np.zeros((2, 8), dtype=np.int64), 12, 1, 1, 4)
    assert phy2log.shape == (2, 12)
    assert (logcnt >= 1).all() and (logcnt.sum(axis=1) == 12).all()


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((EXAMPLE, 17, 4, 2, 8), {}, "num_replicas 17 is not a multiple of num_gpus 8"),
        ((EXAMPLE, 8, 4, 2, 8), {}, "num_replicas 8 is less than the number of experts 12: each needs a replica"),
        ((EXAMPLE, 16, 4, 2, 7), {}, "num_gpus 7 is not a multiple of num_nodes 2"),
        ((EXAMPLE, 16, 4, 2, -8), {}, "num_gpus -8 is not a whole number, at least 1"),
        ((EXAMPLE, 16.5, 4, 2, 8), {}, "num_replicas 16.5 is not a whole number, at least 1"),
        ((EXAMPLE, 16, None, 2, 8), {}, "num_groups None is not a whole number, at least 1"),
        ((EXAMPLE, 2**70, 4, 2, 8), {}, f"num_replicas {2**70} is not a whole number, at least 1"),
        ((EXAMPLE[0], 16, 4, 2, 8), {}, "weight of shape [12] is not [layers, experts] or [windows, layers, experts]"),
        ((-EXAMPLE, 16, 4, 2, 8), {}, "load of layer 0, expert 0: -90 is negative"),
        ((EXAMPLE * np.nan, 16, 4, 2, 8), {}, "load of layer 0, expert 0: NaN is not a finite number"),
        ((EXAMPLE * 1j, 16, 4, 2, 8), {}, "weight of dtype complex128 is not of numbers"),
        (([["a"]], 16, 4, 2, 8), {}, "weight of dtype <U1 is not of numbers"),
        ((EXAMPLE[:0], 16, 4, 2, 8), {}, "layers 0 is not between 1 and 65536"),
        ((EXAMPLE, 16, 4, 2, 8), {"device": "no such"}, "device no such is not here; found:"),
        ((EXAMPLE, 16, 4, 2, 8), {"threads": 0}, "threads 0 is not between 1 and 1024"),
        ((EXAMPLE, 16, 4, 2, 8), {"preset": "gen99"}, "preset gen99 is not one of default, fast"),
        ((EXAMPLE, 16, 4, 2, 8), {"starts": -1}, "starts -1 is not a whole number, at least 0"),
        ((EXAMPLE, 16, 4, 2, 8), {"kicks": 1}, "option kicks is not one of preset, seed"),
        ((EXAMPLE, 16, 4, 2, 8), {"allow_duplicates": "yes"}, "allow_duplicates yes is not True or False"),
    ],
)
def test_errors_name_field_value_and_rule(arguments: tuple, options: dict, said: str) -> None:
    with pytest.raises(InvalidError) as caught:
        rebalance_experts(*arguments, **options)
    error = caught.value
    assert isinstance(error, ValueError)
    assert str(error).startswith(said)
    assert str(error) == f"{error.field} {error.value} {error.rule}"
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.field) == (InvalidError, str(error), error.field)


def test_device_and_threads_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert eplb_wgpu.Planner().device.startswith("CPU")
    monkeypatch.setenv("EPLB_WGPU_THREADS", "3")
    assert eplb_wgpu.Planner().threads == 3
    assert eplb_wgpu.Planner(threads=2).threads == 2
    monkeypatch.setenv("EPLB_WGPU_THREADS", "many")
    with pytest.raises(InvalidError, match="EPLB_WGPU_THREADS many is not a whole number"):
        eplb_wgpu.Planner()
    monkeypatch.setenv("EPLB_WGPU_DEVICE", "no such")
    with pytest.raises(InvalidError, match="device no such is not here"):
        eplb_wgpu.Planner(threads=1)


def test_other_threads_run_while_a_plan_is_made() -> None:
    weight = loads(58, 256)
    ticks = []
    ended = threading.Event()

    def tick() -> None:
        while not ended.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        start = time.perf_counter()
        rebalance_experts(weight, 288, 1, 1, 96, threads=1, preset="thorough")
        end = time.perf_counter()
    finally:
        ended.set()
        ticker.join()
    during = [at for at in ticks if start < at < end]
    # With the lock held there would be two or three, however long it takes.
    assert end - start > 0.05 and len(during) > 8, f"{len(during)} in {end - start:.3f} s"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_plans_on_threads_of_its_own() -> None:
    wanted = eplb_wgpu.Planner().plan(EXAMPLE, eplb_wgpu.Cluster(16, 4, 2, 8)).fingerprint
    # In a process of its own, which no other test's threads can hang.
    program = f"""
import os, signal, sys, eplb_wgpu
weight = {EXAMPLE.tolist()}
planner, cluster = eplb_wgpu.Planner(threads=2), eplb_wgpu.Cluster(16, 4, 2, 8)
assert planner.plan(weight, cluster).fingerprint == "{wanted}"
child = os.fork()
if not child:
    signal.alarm(30)
    os._exit(0 if planner.plan(weight, cluster).fingerprint == "{wanted}" else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_torch_is_not_imported() -> None:
    program = "import sys, eplb_wgpu; eplb_wgpu.rebalance_experts([[2, 1]], 4, 1, 1, 2); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
