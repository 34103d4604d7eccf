"""Auth's GraphQL: types, queries, mutations, a room for each noun."""

import strawberry

from libs.core.graphql import build_schema
from services.auth.schema.administration import AdministrationMutations, AdministrationQueries
from services.auth.schema.api_keys import ApiKeyMutations, ApiKeyQueries
from services.auth.schema.devices import DeviceMutations, DeviceQueries
from services.auth.schema.factors import FactorMutations, FactorQueries
from services.auth.schema.identities import IdentityMutations, IdentityQueries
from services.auth.schema.passkeys import PasskeyMutations
from services.auth.schema.roles import RoleMutations, RoleQueries
from services.auth.schema.security_log import SecurityLogQueries
from services.auth.schema.sessions import SessionMutations, SessionQueries
from services.auth.schema.sign_in import SignInMutations
from services.auth.schema.signing_keys import SigningKeyMutations, SigningKeyQueries
from services.auth.schema.step_up import StepUpMutations
from services.auth.schema.users import User, UserMutations, UserQueries


@strawberry.type
class Query(
    UserQueries,
    SessionQueries,
    FactorQueries,
    DeviceQueries,
    IdentityQueries,
    AdministrationQueries,
    RoleQueries,
    ApiKeyQueries,
    SecurityLogQueries,
    SigningKeyQueries,
):
    pass


@strawberry.type
class Mutation(
    SignInMutations,
    SessionMutations,
    UserMutations,
    FactorMutations,
    StepUpMutations,
    PasskeyMutations,
    DeviceMutations,
    IdentityMutations,
    AdministrationMutations,
    RoleMutations,
    ApiKeyMutations,
    SigningKeyMutations,
):
    pass


schema = build_schema(Query, Mutation, types=[User])
