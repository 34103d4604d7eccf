"""From a plan to an answer."""

from gateway.federation.execute.executor import Executor

__all__ = ["Executor"]
