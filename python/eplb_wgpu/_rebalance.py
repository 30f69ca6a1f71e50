"""Plans over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import _core
from ._arrays import loads_of, whole, windows_of
from ._options import split
from ._plan import Plan, running_map
from ._planner import Planner, shared_planner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Unpack

    from ._core import Cluster
    from ._files import Map
    from ._options import RebalanceOptions

STRATEGIES = ("scenarios", "forecast")


@dataclass(frozen=True)
class Proposal:
    """Result of :meth:`Rebalancer.propose`."""

    plan: Plan
    """The plan, with its :attr:`Plan.moves` where one runs already."""
    strategy: str
    """The strategy by which the plan was made."""


class Rebalancer:
    """Watches windows of loads and proposes plans for the next one.

    Args:
        cluster: Where replicas can go.
        strategy: the last windows around a forecast as ``scenarios``, or the ``forecast`` alone.
        planner: What makes the plans; one made on first use by default.
        **options: See :class:`RebalanceOptions`. By default at most 5 % of the slots move at a step.

    Raises:
        InvalidError: An option out of range or unknown.

    >>> from eplb_wgpu import Cluster, Rebalancer
    >>> rebalancer = Rebalancer(Cluster(6, 1, 1, 3))
    >>> for counts in ([90, 30, 20, 10], [80, 40, 20, 10]):
    ...     rebalancer.observe([counts])
    ...     proposal = rebalancer.propose()
    ...     rebalancer.apply(proposal.plan)  # once the weights are there
    """

    def __init__(
        self,
        cluster: Cluster,
        strategy: str = "scenarios",
        *,
        planner: Planner | None = None,
        **options: Unpack[RebalanceOptions],
    ) -> None:
        chosen, limits = split(options)
        chosen["strategy"] = strategy
        inner = (planner or shared_planner())._inner
        self._inner = _core.Rebalancer(inner, cluster, chosen, limits)

    def observe(self, weight: ArrayLike) -> None:
        """Adds the loads [layers, experts] of the window that just ended.

        Raises:
            InvalidError: Another shape than before, or one that does not fit the cluster.
        """
        self._inner.observe(loads_of(weight))

    def propose(self) -> Proposal:
        """A plan for the next window, from the plan that runs if there is one.

        Raises:
            InvalidError: Before the first window.
        """
        plan, strategy = self._inner.propose()
        return Proposal(Plan(plan), strategy)

    def apply(self, running: Plan | Map | ArrayLike) -> None:
        """Tells that a plan or a map [layers, slots] runs now: the one proposed, or any other, which need not fit.

        Raises:
            InvalidError: Before the first window, or a map of other layers.
        """
        data, slots = running_map(running)
        self._inner.apply(data, slots)


@dataclass(frozen=True, eq=False)
class ReplayRow:
    """Scores of one way of planning on a trace."""

    name: str
    """A strategy, or ``oracle``, ``greedy``, ``never move``."""
    balancedness: NDArray[np.float64]
    """[windows - 1]: balancedness over GPUs of each window but the first, with the plan made before it."""
    replica_balancedness: NDArray[np.float64]
    """[windows - 1]: the same over replicas."""
    moved: NDArray[np.float64]
    """The share of the slots that moved, at each new plan but the first."""
    milliseconds: NDArray[np.float64]
    """Time that each new plan took."""


def replay(
    windows: ArrayLike,
    cluster: Cluster,
    *,
    strategies: Sequence[str] = STRATEGIES,
    interval: int = 1,
    planner: Planner | None = None,
    **options: Unpack[RebalanceOptions],
) -> list[ReplayRow]:
    """Walks a recorded trace: plans on the windows so far, scores on the next.

    Args:
        windows: [windows, layers, experts], at least 2 windows.
        cluster: Where replicas can go.
        strategies: A row each.
        interval: A new plan every this many windows.
        planner: What makes the plans; one made on first use by default.
        **options: As for :class:`Rebalancer`.

    Returns:
        A row for each strategy, then ``oracle`` (a fresh plan on the window it is scored on), ``greedy`` (DeepSeek's
        rule on the last window) and ``never move``.

    Raises:
        InvalidError: Fewer than 2 windows, an interval of 0, an option out of range or unknown.
    """
    chosen, limits = split(options)
    inner = (planner or shared_planner())._inner
    loads = windows_of(windows)
    rows = _core.replay(inner, loads, cluster, list(strategies), whole("interval", interval), chosen, limits)
    return [
        ReplayRow(
            name=row["name"],
            balancedness=np.array(row["balancedness"]),
            replica_balancedness=np.array(row["replica_balancedness"]),
            moved=np.array(row["moved"]),
            milliseconds=np.array(row["milliseconds"]),
        )
        for row in rows
    ]
