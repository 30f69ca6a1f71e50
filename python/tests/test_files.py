"""Maps and loads of files, and a call that is interrupted."""

from __future__ import annotations

import gzip
import json
import os
import signal
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import loads

import eplb_wgpu
from eplb_wgpu import Cluster, InvalidError, Map, Planner, Rebalancer, check, read_loads, read_map


@pytest.mark.parametrize(
    ("format", "name"),
    [
        ("eplb", "a.json"),
        ("tensorrt-llm", "a.yaml"),
        ("npy", "a.npy"),
        ("sglang", "s.json"),
        ("vllm", "v.json"),
        ("vllm-ascend", "c.json"),
    ],
)
def test_plans_go_to_every_format_and_come_back(tmp_path: Path, format: str, name: str) -> None:
    weight, cluster = loads(3, 32), Cluster(48, 4, 2, 8)
    plan = Planner().plan(weight, cluster)
    by_ending = name.startswith("a.")
    plan.save(tmp_path / name, None if by_ending else format)
    read = read_map(tmp_path / name)
    assert read.format == format and np.array_equal(read.physical_to_logical, plan.physical_to_logical)
    assert check(weight, cluster, read).balancedness == plan.balancedness
    assert Planner().replan(weight, cluster, read).moves.received == 0
    if format == "eplb":
        with pytest.raises(InvalidError, match="format eplb is that of a plan made here"):
            read.save(tmp_path / "again.json", "eplb")
    else:
        Map(read.physical_to_logical, read.layer_ids, 8).save(tmp_path / "again", format)
        assert (tmp_path / "again").read_bytes() == (tmp_path / name).read_bytes()


def test_layers_keep_their_numbers(tmp_path: Path) -> None:
    weight, cluster = loads(3, 32), Cluster(40, 1, 1, 8)
    plan = Planner().plan(weight, cluster, layer_ids=[3, 4, 7])
    assert plan.layer_ids == [3, 4, 7]
    plan.save(tmp_path / "plan.json")
    plan.save(tmp_path / "balancer.yaml")
    for name in ("plan.json", "balancer.yaml"):
        read = read_map(tmp_path / name)
        assert list(read.layer_ids or []) == [3, 4, 7]
        with pytest.raises(InvalidError, match=r"layers of previous \[3, 4, 7\] are not those of the loads, \[0, 1, 2\]"):
            Planner().replan(weight, cluster, read, layer_ids=[0, 1, 2])
    with pytest.warns(UserWarning, match="npy has no layer numbers: row 0 is layer 3"):
        plan.save(tmp_path / "plan.npy")
    with pytest.raises(InvalidError, match="layer id 3 is there twice"):
        Planner().plan(weight, cluster, layer_ids=[3, 3, 4])
    with pytest.raises(InvalidError, match="layer id 4294967296 is not below 2"):
        Planner().plan(weight, cluster, layer_ids=[3, 2**32, 4])


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path) -> None:
    cluster = Cluster(48, 4, 2, 8)
    plan = Planner().plan(loads(1, 32), cluster)
    with pytest.raises(FileNotFoundError, match="none.json"):
        read_map(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('{"physical_to_logical_map": [[0, 1], [0]]}')
    with pytest.raises(InvalidError, match="file .*bad.json cannot be read: .*layer 1 has 1 slots"):
        read_map(tmp_path / "bad.json")
    with pytest.raises(InvalidError, match="format toml is not one of eplb, sglang"):
        plan.save(tmp_path / "plan.toml", "toml")
    with pytest.raises(OSError, match="its ending is not json, yaml or npy"):
        plan.save(tmp_path / "plan.toml")
    with pytest.raises(OSError, match="cannot write"):
        plan.save(tmp_path / "no" / "plan.json")
    with pytest.raises(InvalidError, match="cannot hold a free slot: layer 0, slot 1 is -1"):
        Map(np.array([[0, -1]])).save(tmp_path / "map.json", "sglang")
    with pytest.raises(InvalidError, match="does not tell how many"):
        Map(np.array([[0, 1]])).save(tmp_path / "map.json", "vllm-ascend")
    assert list(tmp_path.iterdir()) == [tmp_path / "bad.json"]


def test_recorded_loads(tmp_path: Path) -> None:
    counts = np.stack([loads(3, 8, seed) for seed in range(2)])
    np.save(tmp_path / "a.npy", counts)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps({"logical_count": counts.tolist()}).encode()))
    (tmp_path / "rows.csv").write_text("layer_id,expert_id,count\n3,0,5\n3,1,2\n9,1,4\n3,0,1\n")
    for name in ("a.npy", "a.json.gz"):
        recorded = read_loads(tmp_path / name)
        assert recorded.loads.dtype == np.int64 and np.array_equal(recorded.loads, counts)
        assert list(recorded.layer_ids) == [0, 1, 2]
    rows = read_loads(tmp_path / "rows.csv")
    assert rows.loads.tolist() == [[[6, 2], [0, 4]]] and list(rows.layer_ids) == [3, 9]
    np.save(tmp_path / "half.npy", counts[0] / 2)
    assert read_loads(tmp_path / "half.npy").loads.dtype == np.float64
    with pytest.raises(InvalidError, match="load format pickle is not one of"):
        read_loads(tmp_path / "a.npy", "pickle")


def test_torch_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = loads(3, 8)
    held = {"logical_count": np.stack([counts, counts]), "physical_to_logical_map": np.array([[0, 1, 1]])}
    for name in ("a.pt", "a.PT"):
        (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InvalidError, match="is read by torch, which is not installed here"):
        read_loads(tmp_path / "a.pt")
    torch = types.ModuleType("torch")
    asked: list[object] = []
    torch.load = lambda *given, **options: asked.append((given, options)) or held  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert np.array_equal(read_loads(tmp_path / "a.pt").loads, held["logical_count"])
    assert read_map(str(tmp_path / "a.PT")).physical_to_logical.tolist() == [[0, 1, 1]]
    # Nothing in the file may be run.
    assert all(options["weights_only"] is True for _, options in asked)  # type: ignore[misc, index]
    del held["logical_count"]
    # A dump of SGLang's recorder has, for each pass, counts of slots, and the map that ran.
    running, slots = np.array([[0, 1, 1], [2, 0, -1]]), np.array([[5, 1, 2], [3, 4, 6]])
    records = [{"forward_pass_id": 7 + at % 2, "rank": 0, "global_physical_count": slots} for at in range(3)]
    dumped = {"records": records, "last_physical_to_logical_map": running}
    torch.load = lambda *_, **__: dumped  # type: ignore[attr-defined]
    counts = np.array([[5, 3, 0], [4, 0, 3]])
    assert np.array_equal(read_loads(tmp_path / "a.pt").loads, [2 * counts, counts])
    dumped["records"] = [*records, {"rank": 0}]
    with pytest.raises(InvalidError, match="is not as a recorder writes it: 'forward_pass_id'"):
        read_loads(tmp_path / "a.pt")
    dumped["records"] = records
    records[0]["global_physical_count"] = slots[:1]
    with pytest.raises(InvalidError, match=r"of shape \[1, 3\] is not that of last_physical_to_logical_map"):
        read_loads(tmp_path / "a.pt")
    torch.load = lambda *_, **__: held  # type: ignore[attr-defined]
    with pytest.raises(InvalidError, match=r"holds \['physical_to_logical_map'\], not logical_count"):
        read_loads(tmp_path / "a.pt")
    held["logical_count"] = np.array([[1.0, np.nan]])
    with pytest.raises(InvalidError, match="load of window 0, layer 0, expert 1 of .* nan is not a finite"):
        read_loads(tmp_path / "a.pt")

    def damaged(*_: object, **__: object) -> None:
        raise OSError(22, "Invalid argument")

    torch.load = damaged  # type: ignore[attr-defined]
    with pytest.raises(InvalidError, match="cannot be read by torch: .*Invalid argument"):
        read_map(tmp_path / "a.pt")
    with pytest.raises(FileNotFoundError):
        read_map(tmp_path / "none.pt")
    torch.load = lambda *_, **__: held  # type: ignore[attr-defined]
    held["logical_count"] = np.ones(3)
    with pytest.raises(InvalidError, match=r"of shape \[3\] is not"):
        read_loads(tmp_path / "a.pt")


def interrupted(call: object) -> float:
    """Seconds from a Ctrl-C until a call ends with KeyboardInterrupt."""
    sent: list[float] = []

    def interrupt() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    # A shell that runs this in the background has it ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        call()  # type: ignore[operator]
    timer.join()
    return time.monotonic() - sent[0]


def test_ctrl_c_ends_a_call_and_leaves_the_planner_usable() -> None:
    # Some ten seconds of work.
    weight, cluster, planner = loads(3000, 256), Cluster(432, 1, 1, 144), Planner(threads=2)
    assert interrupted(lambda: planner.plan(weight, cluster, preset="thorough")) < 5
    small = loads(1, 8)
    assert planner.plan(small, Cluster(12, 1, 1, 4)).balancedness > 0
    rebalancer = Rebalancer(cluster, planner=planner)
    rebalancer.observe(loads(3000, 256))
    assert interrupted(rebalancer.propose) < 5
    # Only the plan was lost: the next window is taken, and only one of another model is not.
    with pytest.raises(InvalidError, match="layers of the window 1 is not as before, 3000"):
        rebalancer.observe(small)
    other = Rebalancer(Cluster(12, 1, 1, 4), planner=planner)
    other.observe(small)
    assert other.propose().plan.balancedness > 0


def test_the_package_tells_all_its_names() -> None:
    assert {"Map", "RecordedLoads", "read_loads", "read_map"} <= set(eplb_wgpu.__all__)
