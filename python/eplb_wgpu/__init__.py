"""Expert-parallel load balancing for Mixture-of-Experts serving: near-optimal plans, the same bytes on every device.

:func:`rebalance_experts` is DeepSeek's function; :class:`Planner` says more and can do more; :class:`Rebalancer` is for
a serving loop. :mod:`eplb_wgpu.vllm`, :mod:`eplb_wgpu.sglang` and :mod:`eplb_wgpu.ascend` are the doors of the engines.
"""

from ._core import PLAN_VERSION, Cluster, devices
from ._core import VERSION as __version__
from ._errors import InvalidError
from ._files import Map, RecordedLoads, read_loads, read_map
from ._options import MoveLimits, PlanOptions, RebalanceOptions, presets
from ._plan import Moves, Plan, Quality, Traffic
from ._planner import Planner, check, rebalance_experts
from ._rebalance import Proposal, Rebalancer, ReplayRow, replay

__all__ = [
    "PLAN_VERSION",
    "Cluster",
    "InvalidError",
    "Map",
    "MoveLimits",
    "Moves",
    "Plan",
    "PlanOptions",
    "Planner",
    "Proposal",
    "Quality",
    "RebalanceOptions",
    "Rebalancer",
    "RecordedLoads",
    "ReplayRow",
    "Traffic",
    "__version__",
    "check",
    "devices",
    "presets",
    "read_loads",
    "read_map",
    "rebalance_experts",
    "replay",
]
