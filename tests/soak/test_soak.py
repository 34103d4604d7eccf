"""A short soak, with one seed: `make soak` takes any, and as long as one likes."""

from pathlib import Path

import pytest

from tests.soak import nemesis
from tests.soak.soak import Plan, run

# A process takes seconds to start on a busy machine, so a short run has room for few faults.
FAULTS = (
    nemesis.kill_a_payment_process,
    nemesis.kill_mongodb,
    nemesis.empty_redis,
    nemesis.publish_events_again,
    nemesis.kill_redis,
    nemesis.freeze_a_payment_process,
    nemesis.kill_a_client,
)


# Half a minute each; twice that beside other tests.
pytestmark = pytest.mark.timeout(240)


class TestSoak:
    def test_nothing_is_made_lost_or_moved_twice(self, tmp_path: Path) -> None:
        plan = Plan(seed="1", seconds=12, processes=2, clients=2, faults=FAULTS, at_most=6)
        result = run(plan, tmp_path)
        assert not result.violations, f"{result}, see {tmp_path}"
        assert result.faults >= 2
        assert result.outcomes["ok"] > 100


class TestRollingRestart:
    def test_no_call_fails(self, tmp_path: Path) -> None:
        """Clients go elsewhere when a connection is refused, and need to know no more than that.

        But for a request that is on its way just when its idle connection is closed: HTTP/1.1 has no word for that,
        and the same id is asked again.
        """
        restarts = (nemesis.restart_all_in_turn,)
        plan = Plan(seed="1", seconds=8, processes=2, clients=2, faults=restarts, at_most=1)
        result = run(plan, tmp_path)
        assert not result.violations, f"{result}, see {tmp_path}"
        assert result.troubles.keys() <= {"REFUSED_CONNECTION", "CONNECTION_LOST"}, f"{result}, see {tmp_path}"
        assert result.troubles["CONNECTION_LOST"] <= 2, f"{result}, see {tmp_path}"
