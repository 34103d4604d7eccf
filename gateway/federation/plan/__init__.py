"""From an operation to the requests that answer it."""

from gateway.federation.plan.choice import PlanTooLarge, Unreachable
from gateway.federation.plan.operation import Operation
from gateway.federation.plan.plan import Plan, Step, explain
from gateway.federation.plan.planner import Planner

__all__ = ["Operation", "Plan", "PlanTooLarge", "Planner", "Step", "Unreachable", "explain"]
