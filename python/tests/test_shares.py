"""Tables of shares."""

import numpy as np
import pytest
from eplb_wgpu import Cluster, InvalidError, Planner


def series(windows: int) -> np.ndarray:
    """Loads [windows, layers, experts] that drift."""
    rng = np.random.default_rng(3)
    base = rng.integers(100, 2000, (3, 24))
    return np.stack([base + rng.integers(0, 400, base.shape) for _ in range(windows)])


def test_tables_sum_up_and_level_a_batch():
    loads, cluster, planner = series(20), Cluster(32, 1, 1, 8), Planner(threads=2)
    plan = planner.plan(loads[-2], cluster, connected=True)
    tables = [
        planner.shares(loads[:-1], cluster, plan),
        planner.shares(loads[:-1], cluster, plan, sample=loads[-1] // 10),
        planner.batch_shares(loads[-1], cluster, plan),
    ]
    for table in tables:
        assert table.shape == plan.physical_to_logical.shape and table.min() >= 0
        for row, held in zip(table, plan.physical_to_logical, strict=True):
            assert np.bincount(held, row, 24).tolist() == [256] * 24
    even = planner.check(loads[-1], cluster, plan).balancedness
    scored = [planner.check(loads[-1], cluster, plan, shares=table).balancedness for table in tables]
    assert scored[2] > 0.99 and scored[2] > even
    # The same of the map alone.
    again = planner.batch_shares(loads[-1], cluster, plan.physical_to_logical)
    assert (again == tables[2]).all()


def test_what_does_not_fit_is_refused():
    loads, cluster, planner = series(2), Cluster(32, 1, 1, 8), Planner(threads=1)
    plan = planner.plan(loads[0], cluster)
    with pytest.raises(InvalidError, match="is not \\[windows, layers, experts\\]"):
        planner.shares(loads[0], cluster, plan)
    with pytest.raises(InvalidError, match="layers of the batch 2 is not 3"):
        planner.batch_shares(loads[0][:2], cluster, plan)
    with pytest.raises(InvalidError, match="sum to"):
        planner.check(loads[0], cluster, plan, shares=np.zeros((3, 32), np.int64))
    with pytest.raises(InvalidError, match="connected"):
        planner.plan(loads[0], cluster, connected="yes")
