"""The engines' own modules with this planner in the place of theirs.

EPLB_ENGINES names a folder with the unpacked packages `vllm`, `sglang` and `vllm_ascend`, or some of them, of which
only the parts about expert load balancing are executed: what else they import is a mock. `EPLB_ENGINES=installed` takes
the packages of this environment as they are, and vLLM's own tests from EPLB_ENGINES_TESTS. Without it, or without torch,
nothing of this runs. Each engine has a process of its own, in which the entry points of the wheel are called.

On a machine without a GPU vLLM 0.33.0 and SGLang 0.5.23 are installed by `pip install --no-deps vllm sglang`, beside torch and
the plain packages that they import; vllm_ascend imports torch_npu, and is unpacked.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("torch")

ENGINES = pathlib.Path(os.environ.get("EPLB_ENGINES", "/nowhere"))
INSTALLED = str(ENGINES) == "installed"
TESTS = pathlib.Path(os.environ.get("EPLB_ENGINES_TESTS", ENGINES / "tests"))

PRELUDE = """
import importlib, importlib.abc, importlib.machinery, importlib.metadata, importlib.util, sys, types
from unittest import mock
import numpy as np, torch
sys.path[:0] = [HERE] if INSTALLED else [HERE, ENGINES]

class Mocks(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    '''Real modules for the names that start with one of `real`, packages without their contents for what these are
    in, and mocks for all else of the package.'''
    def __init__(self, package, *real):
        self.package, self.real = package, real
        if not INSTALLED:
            sys.meta_path.insert(0, self)
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] != self.package or any((name + '.').startswith(r + '.') for r in self.real):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        inside = any(r.startswith(spec.name + '.') for r in self.real)
        module.__path__ = [ENGINES + '/' + spec.name.replace('.', '/')] if inside else []
        module.__getattr__ = lambda field: mock.MagicMock(name=spec.name + '.' + field)
        return module
    def exec_module(self, module):
        pass

def entry(group, name):
    return {e.name: e for e in importlib.metadata.entry_points(group=group)}[name].load()

def drifting(layers, experts, times):
    random = np.random.default_rng(0)
    weight = random.lognormal(0, 1, (layers, experts)) * 1000
    for _ in range(times):
        yield torch.from_numpy(weight.astype(np.int64))
        weight = weight * random.lognormal(0, .1, weight.shape)
"""


def run(package: str, program: str) -> None:
    """Runs a program with the real parts of a package; skips where the package is not there."""
    if not (importlib.util.find_spec(package) if INSTALLED else (ENGINES / package).is_dir()):
        pytest.skip(f"EPLB_ENGINES has no {package}")
    here = pathlib.Path(__file__).parent
    names = f"HERE, ENGINES, TESTS, INSTALLED = {str(here)!r}, {str(ENGINES)!r}, {str(TESTS)!r}, {INSTALLED}"
    text = f"{names}\n{PRELUDE}\n{textwrap.dedent(program)}"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_vllm() -> None:
    run(
        "vllm",
        """
        Mocks('vllm', 'vllm.distributed.eplb', 'vllm.plugins')
        import typing, vllm.config.parallel, vllm.envs
        vllm.config.parallel.EPLBPolicyOption = typing.Literal['default']
        vllm.envs.VLLM_PLUGINS = None
        import vllm.plugins
        vllm.plugins.load_general_plugins()
        from vllm.distributed.eplb import async_worker, eplb_state, policy
        from vllm.distributed.eplb.eplb_utils import CpuGpuEvent
        from vllm.distributed.eplb.migration_scheduler import schedule_migration_batches_for_layers
        ours = policy.EPLB_POLICIES['default']
        assert ours is not policy.DefaultEplbPolicy and issubclass(ours, policy.AbstractEplbPolicy)

        L, E, R, G = 12, 64, 80, 8
        start = eplb_state.EplbState.build_initial_global_physical_to_logical_map(E, R - E)
        old = torch.tensor(start).repeat(L, 1)
        async_worker.device_stream = lambda stream: mock.MagicMock()
        for weight in drifting(L, E, 6):
            stats = eplb_state.EplbStats(
                global_expert_load_window=weight, num_replicas=R, num_groups=8, num_nodes=4, num_gpus=G)
            state = types.SimpleNamespace(policy=ours)
            model = types.SimpleNamespace(eplb_stats=stats)
            # The planner of each of two ranks.
            ranks = [async_worker.run_rebalance_experts(model, state, old, None) for _ in range(2)]
            assert ranks[0].numpy().tobytes() == ranks[1].numpy().tobytes()
            new = ranks[0]
            assert new.device.type == 'cpu' and new.dtype == torch.int64 and new.shape == (L, R)
            moved = (new != old).sum().item()
            assert 0 < moved <= .05 * L * R + R
            log2phy, counts = eplb_state.compute_logical_maps(new, E)
            assert (counts >= 1).all() and (counts.sum(dim=1) == R).all()
            # A replica that stays on its rank stays in its slot: vLLM's own rearrangement finds nothing to mend.
            kept = policy.DefaultEplbPolicy.preserve_intragpu_slots(new.numpy(), G, old.numpy())
            assert (kept == new.numpy()).all()
            batches = schedule_migration_batches_for_layers(R // G, old.numpy(), new.numpy())
            assert len(batches) == L
            old = new
        """,
    )


def test_vllm_s_own_tests() -> None:
    """`test_eplb_algo.py` of the source distribution, in the folder `tests`, on this planner."""
    if not (TESTS / "test_eplb_algo.py").is_file():
        pytest.skip("EPLB_ENGINES has no tests/test_eplb_algo.py")
    run(
        "vllm",
        """
        Mocks('vllm', 'vllm.distributed.eplb')
        import typing, pytest, vllm.config.parallel
        vllm.config.parallel.EPLBPolicyOption = typing.Literal['default']
        entry('vllm.general_plugins', 'eplb_wgpu')()
        from vllm.distributed.eplb import policy
        from vllm.distributed.eplb.policy import default
        ours = policy.EPLB_POLICIES['default']
        ours.preserve_intragpu_slots = default.DefaultEplbPolicy.preserve_intragpu_slots
        default.DefaultEplbPolicy = ours
        import vllm.platforms
        if not INSTALLED:
            vllm.platforms.current_platform = mock.MagicMock(is_xpu=lambda: False)
        # Greedy's very plan; its assertion, where ours is a ValueError; more replicas than there are GPUs.
        others = ['test_basic_rebalance', 'test_parameter_validation', 'test_extreme_weight_imbalance']
        skipped = ' and '.join('not ' + name for name in others)
        arguments = ['-q', '-p', 'no:cacheprovider', '--rootdir', TESTS, TESTS + '/test_eplb_algo.py']
        code = pytest.main(arguments + ['-k', skipped])
        sys.exit(int(code))
        """,
    )


def test_sglang() -> None:
    run(
        "sglang",
        """
        Mocks('sglang', 'sglang.srt.eplb')
        import sglang.srt.elastic_ep.elastic_ep
        sglang.srt.elastic_ep.elastic_ep.elastic_expanded_world_enabled = lambda: False
        entry('sglang.srt.plugins', 'eplb_wgpu')()
        from sglang.srt.eplb import eplb_algorithms, expert_location
        import eplb_wgpu.sglang
        assert eplb_algorithms.rebalance_experts is eplb_wgpu.sglang.rebalance_experts

        L, E, R, G = 6, 64, 80, 8
        Meta = expert_location.ExpertLocationMetadata
        shape = types.SimpleNamespace(num_layers=L, num_logical_experts=E, num_groups=8)
        common = dict(model_config_for_expert_location=shape, num_physical_experts=R, ep_size=G)
        Meta._init_common = staticmethod(lambda config: common)
        expert_location.get_device = lambda: types.SimpleNamespace(device='cpu')
        expert_location.get_parallel = lambda: types.SimpleNamespace(nnodes=4, ep_size=G)
        moe = types.SimpleNamespace(eplb_algorithm='auto', ep_dispatch_algorithm='static', ep_join_mode=None)
        expert_location.get_exec = lambda: types.SimpleNamespace(moe=moe)
        torch.distributed.get_rank = lambda: 0
        running = None
        expert_location.get_global_expert_location_metadata = lambda: running
        for at, weight in enumerate(drifting(L, E, 6)):
            moe.eplb_algorithm = ['auto', 'deepseek', 'eplb_wgpu', 'deepseek_hierarchical'][at % 4]
            made = Meta.init_by_eplb(None, weight.repeat(30, 1, 1))
            assert made.physical_to_logical_map.shape == (L, R)
            assert (made.logical_to_all_physical_map_num_valid >= 1).all()
            if running is not None:
                assert (made.physical_to_logical_map != running.physical_to_logical_map).sum() <= .05 * L * R + R
                running.update(made, update_layer_ids=list(range(L)))
            else:
                running = made
        # A rank dies, with the shapes of SGLang's own function.
        from sglang.srt.eplb.eplb_algorithms import elasticity_aware
        alive = torch.ones(G, dtype=torch.int32)
        alive[2] = 0
        manager = mock.MagicMock()
        manager.instance.return_value.active_ranks = alive
        sys.modules['sglang.srt.elastic_ep.elastic_ep'].ElasticEPStateManager = manager
        moe.eplb_algorithm = 'elasticity_aware'
        made = Meta.init_by_eplb(None, weight[None])
        theirs = elasticity_aware.rebalance_experts(weight, R, 8, 4, G, False, alive)
        assert made.physical_to_logical_map.shape == theirs[0].shape
        dead = slice(2 * R // G, 3 * R // G)
        assert (made.physical_to_logical_map[:, dead] == theirs[0][:, dead]).all()
        lists = made.logical_to_all_physical_map
        assert not ((lists >= dead.start) & (lists < dead.stop)).any()
        assert (made.logical_to_all_physical_map_num_valid.sum(dim=1) == R - R // G).all()
        """,
    )


def test_vllm_ascend() -> None:
    run(
        "vllm_ascend",
        """
        Mocks('vllm')
        Mocks('vllm_ascend', 'vllm_ascend.eplb.core.eplb_worker', 'vllm_ascend.eplb.core.policy.policy_factory',
              'vllm_ascend.eplb.core.policy.policy_abstract', 'vllm_ascend.eplb.core.eplb_utils')
        entry('vllm.general_plugins', 'eplb_wgpu_ascend')()
        eplb_worker = importlib.import_module('vllm_ascend.eplb.core.eplb_worker')
        import eplb_wgpu.ascend

        L, D, K, E = 6, 8, 9, 64
        worker = eplb_worker.EplbWorker({}, 1)
        assert isinstance(worker.policy, eplb_wgpu.ascend.Policy)
        worker.rank_id = 0
        eplb_worker.generate_log2phy_map = lambda *args, **options: torch.zeros(1)
        errors = []
        eplb_worker.logger = mock.MagicMock(error=lambda *said: errors.append(said))
        rows = [[*range(8 * d, 8 * d + 8), (8 * d + 8) % E] for d in range(D)]
        table = torch.tensor(rows).repeat(L, 1, 1)
        maps = worker.local2global(table)
        worker.shared_dict['expert_maps'] = maps
        for weight in drifting(L, E, 6):
            table = worker.global2local(worker.shared_dict['expert_maps'], K)
            counts = torch.stack([torch.bincount(t.ravel(), minlength=E) for t in table])
            shares = (weight // counts).numpy()
            load = torch.stack([torch.from_numpy(s)[t] for s, t in zip(shares, table)])
            worker.shared_dict['moe_load'] = load
            packed = worker.do_update()
            assert len(packed) == L and not errors, errors
            after = worker.global2local(worker.shared_dict['expert_maps'], K)
            assert 0 < (after != table).sum() <= .1 * L * D * K
        """,
    )
