"""No root field of any service is served without a policy: a new service is found by its `schema.py`."""

from importlib import import_module
from pathlib import Path

import pytest
from strawberry import Schema

from libs.core.access import policy_of_root_fields

ROOT = Path(__file__).parents[2]
SCHEMAS = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.glob("services/*/schema*"))


@pytest.mark.parametrize("module", SCHEMAS)
def test_every_root_field_has_a_policy(module: str) -> None:
    schemas = [value for value in vars(import_module(module)).values() if isinstance(value, Schema)]
    assert schemas, f"{module} makes no schema at its top level"
    undeclared = [name for schema in schemas for name, policy in policy_of_root_fields(schema).items() if not policy]
    assert not undeclared, f"{module}: add Requires(…) or Public() to {', '.join(undeclared)}"
