"""No root field and no route of any service is without a policy: a service is found by its `schema` and `routes`."""

from importlib import import_module
from pathlib import Path

import pytest
from fastapi import APIRouter
from strawberry import Schema

from libs.core.access import CATALOGUE, policy_of_root_fields
from libs.core.app import policy_of_routes

ROOT = Path(__file__).parents[2]
SCHEMAS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (*ROOT.glob("services/*/schema*"), *ROOT.glob("gateway/schema*"))
)


@pytest.mark.parametrize("module", SCHEMAS)
def test_every_root_field_has_a_policy(module: str) -> None:
    schemas = [value for value in vars(import_module(module)).values() if isinstance(value, Schema)]
    assert schemas, f"{module} makes no schema at its top level"
    undeclared = [name for schema in schemas for name, policy in policy_of_root_fields(schema).items() if not policy]
    assert not undeclared, f"{module}: add Requires(…) or Public() to {', '.join(undeclared)}"


@pytest.mark.parametrize("module", SCHEMAS)
def test_what_they_ask_for_is_in_the_catalogue(module: str) -> None:
    """What the linter of policies takes for a slip of the pen."""
    schemas = [value for value in vars(import_module(module)).values() if isinstance(value, Schema)]
    asked = {action for schema in schemas for policy in policy_of_root_fields(schema).values() for action in policy}
    known = {"public", *(f"{resource}:{action}" for resource, actions in CATALOGUE.items() for action in actions)}
    assert asked <= known


ROUTES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for pattern in ("services/*/routes.py", "services/*/routes/[a-z]*.py", "gateway/routes.py")
    for path in ROOT.glob(pattern)
)
# For everyone, with a token or without; each is here for a reason.
PUBLIC = {
    "GET /.well-known/jwks.json",  # the keys that tokens are verified with
    "GET /oauth/{provider_id}/start",  # how somebody who has no token yet begins to log in,
    "GET /oauth/callback/{provider_id}",  # and where the provider sends them back to
    "POST /oauth/callback/{provider_id}",
    "GET /health",  # whether each service is ready, and no more, for load balancers
    "GET /development/messages",  # the development sink, which production does not serve
}


@pytest.mark.parametrize("module", ROUTES)
def test_every_route_has_a_policy(module: str) -> None:
    routers = [value for value in vars(import_module(module)).values() if isinstance(value, APIRouter)]
    policies = {name: policy for router in routers for name, policy in policy_of_routes(router).items()}
    undeclared = [name for name, policy in policies.items() if not policy and name not in PUBLIC]
    assert not undeclared, f"{module}: give {', '.join(undeclared)} a Depends(allowed(…)), or name it in PUBLIC"
