"""Plans operations, and keeps the plans."""

from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Any

from gateway.federation.plan.choice import Unreachable, choose
from gateway.federation.plan.operation import Operation
from gateway.federation.plan.plan import Plan, compiled
from gateway.federation.supergraph import Supergraph

_Key = tuple[str, tuple[bool, ...]]


class Planner:
    """Plans operations over one supergraph. Of more than `kept` plans, or of plans for more than `kept_fields` fields
    together (some 3 KB each), the least recently used are forgotten.

    `most_fields` bounds an operation once its fragments are spread out, however often they spread each other. That many
    can take two seconds: `plan` may be called in a thread while others ask for what is `known`.
    """

    def __init__(
        self, supergraph: Supergraph, *, kept: int = 1_000, kept_fields: int = 50_000, most_fields: int = 5_000
    ) -> None:
        self._graph = supergraph
        self._kept = kept
        self._kept_fields = kept_fields
        self._fields = 0  # of all that are kept
        self._most_fields = most_fields
        self._plans: OrderedDict[_Key, Plan] = OrderedDict()
        self._lock = Lock()

    def known(self, operation: Operation, variables: Mapping[str, Any]) -> Plan | None:
        """The plan, if it was made before."""
        return self._find(_key(operation, operation.conditions(variables)))

    def plan(self, operation: Operation, variables: Mapping[str, Any]) -> Plan:
        """Only variables that @skip and @include ask for matter. `PlanTooLarge`; `Unreachable` if the supergraph has a
        field that no subgraph can answer there."""
        conditions = operation.conditions(variables)
        key = _key(operation, conditions)
        plan = self._find(key)
        if plan is None:
            plan = self._anew(operation, conditions)
            self._keep(key, plan)
        return plan

    def _keep(self, key: _Key, plan: Plan) -> None:
        with self._lock:
            if key in self._plans:  # another thread was as fast
                return
            self._plans[key] = plan
            self._fields += plan.fields
            while len(self._plans) > self._kept or self._fields > self._kept_fields:
                _, forgotten = self._plans.popitem(last=False)
                self._fields -= forgotten.fields

    def _find(self, key: _Key) -> Plan | None:
        with self._lock:
            plan = self._plans.get(key)
            if plan is not None:
                self._plans.move_to_end(key)
            return plan

    def _anew(self, operation: Operation, conditions: Mapping[str, bool]) -> Plan:
        most = self._most_fields
        try:
            layout, fetches = choose(self._graph, operation, conditions, most=most)
        except Unreachable:  # together; one by one there may be ways
            layout, fetches = choose(self._graph, operation, conditions, most=most, apart=True)
        return compiled(operation, layout, fetches)


def _key(operation: Operation, conditions: Mapping[str, bool]) -> _Key:
    return operation.normalised, tuple(conditions.values())
