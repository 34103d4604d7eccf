"""The first administrator of a tenant, or another (`make admin EMAIL=anna@example.com TENANT=acme`).

Whoever has that address already is made one; for who has none, a password is asked for, or read from standard input.
With MONGO_URL set it works on that installation, else on the stack that is running here. It is in the security log.
"""

import asyncio
import os
import sys
from dataclasses import replace
from getpass import getpass

from libs.core.audit import AuditLog
from libs.core.clock import SystemClock
from libs.core.errors import CoreError
from libs.core.events import Event, EventData, Outbox
from libs.core.ids import new_id
from libs.core.mongo import Mongo, Session
from scripts import stack
from scripts.process import Failure
from services.auth.breaches import PasswordRules
from services.auth.domain.identifiers import Identifier, parse_email
from services.auth.domain.users import User, user_key
from services.auth.events import UserRegistered, UserRoleChanged, UserVerified
from services.auth.passwords import Hasher
from services.auth.store import users

ROLE = "admin"
_ACTOR = "make admin"


def main() -> None:
    if not os.environ.get("EMAIL"):
        raise Failure("say who: make admin EMAIL=anna@example.com [TENANT=acme]")
    if "MONGO_URL" not in os.environ:
        os.environ.update(stack.environment())
    email = parse_email(os.environ["EMAIL"], "EMAIL")
    print(asyncio.run(create(email, os.environ.get("TENANT") or stack.DEMO_TENANT)))


async def create(email: Identifier, tenant_id: str) -> str:
    """What was done, for whoever asked."""
    mongo = Mongo.connect(os.environ["MONGO_URL"], service="auth", namespace=os.environ.get("NAMESPACE", ""))
    try:
        if (tenant := await mongo.core["tenants"].find_one({"_id": tenant_id}, {"name": True})) is None:
            raise Failure(f"there is no tenant {tenant_id}")
        known = await users.by_identifier(mongo.db, None, tenant_id, email)
        encoded = "" if known else await _password(email.value, tenant_id, tenant["name"])

        async def work(session: Session) -> str:
            there = await users.by_identifier(mongo.db, session, tenant_id, email)
            return await (
                _promote(mongo, session, there) if there else _insert(mongo, session, tenant_id, email, encoded)
            )

        return await mongo.transaction(work)
    finally:
        await mongo.close()


async def _promote(mongo: Mongo, session: Session, user: User) -> str:
    if ROLE in user.roles:
        return f"{user.email} is an administrator of {user.tenant_id} already"
    roles = (*user.roles, ROLE)
    await users.save(mongo.db, session, user, replace(user, roles=roles))
    told = UserRoleChanged(user_id=user.id, before=list(user.roles), after=list(roles))
    await _record(mongo, session, user, "user.role_changed", [told])
    return f"{user.email} is an administrator of {user.tenant_id} from their next token on"


async def _insert(mongo: Mongo, session: Session, tenant_id: str, email: Identifier, encoded: str) -> str:
    now = SystemClock().now()
    user = User(tenant_id, new_id(), now, roles=(ROLE,)).with_identifier(email)
    user = user.with_password(encoded, now) if encoded else user
    await users.insert(mongo.db, session, user)
    told = [
        UserRegistered(user_id=user.id, method="operator", locale=""),
        UserVerified(user_id=user.id, identifier="email"),
    ]
    await _record(mongo, session, user, "user.registered", told)
    return f"{user.email} is an administrator of {tenant_id}" + ("" if encoded else ", and signs in with a code")


async def _record(mongo: Mongo, session: Session, user: User, action: str, told: list[EventData]) -> None:
    log = AuditLog(mongo.db, f"auth.{user.tenant_id}")
    await log.append(
        session, actor=_ACTOR, on_behalf_of=user.id, action=action, resource=user.id, tenant_id=user.tenant_id,
        after={"roles": [ROLE]}, origin="console",
    )  # fmt: skip
    await Outbox(mongo.db).append(
        session,
        [
            Event.new(
                event,
                source="auth",
                subject=user.id,
                tenant_id=user.tenant_id,
                partition_key=user_key(user.tenant_id, user.id),
                actor=_ACTOR,
            )
            for event in told
        ],
    )


async def _password(*personal: str) -> str:
    """Encoded; "" for none: they sign in with a code, or reset it. It is not made of `personal`."""
    chosen = (getpass("Password (empty: none): ") if sys.stdin.isatty() else sys.stdin.readline()).rstrip("\r\n")
    if not chosen:
        return ""
    with PasswordRules(os.environ.get("BREACHED_PASSWORDS", "")) as rules:
        await rules.check(chosen, personal=personal)
    async with Hasher() as hasher:
        return await hasher.hash(chosen)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(str(failure))
    except CoreError as error:
        sys.exit(error.message)
