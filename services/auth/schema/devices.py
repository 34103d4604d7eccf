"""Devices that stand in for the second factor."""

from datetime import datetime
from typing import Self

import strawberry
from strawberry import ID, Info

from libs.core.access import Requires
from libs.core.context import Context
from libs.core.ids import parse_id
from libs.core.pagination import Connection, PageArgs
from services.auth.commands import devices
from services.auth.domain.devices import KnownDevice
from services.auth.schema.common import auth_of
from services.auth.schema.factors import MANAGE
from services.auth.store import devices as stored


@strawberry.type(description="A device on which you are not asked for a second factor when you sign in.")
class TrustedDevice:
    id: ID
    name: str = strawberry.field(description="As it called itself; may be empty.")
    agent: str = strawberry.field(description="Its browser or app, as that says.")
    address: str = strawberry.field(description="Where it was last seen.")
    first_seen_at: datetime
    last_seen_at: datetime
    trusted_until: datetime

    @classmethod
    def of(cls, device: KnownDevice) -> Self:
        assert device.trusted_until is not None, "only those are listed"
        return cls(
            id=ID(device.id),
            name=device.name,
            agent=device.agent,
            address=device.address,
            first_seen_at=device.first_seen_at,
            last_seen_at=device.last_seen_at,
            trusted_until=device.trusted_until,
        )


@strawberry.type
class DeviceQueries:
    @strawberry.field(description="Yours, the one used last first.", extensions=[Requires(MANAGE)])
    async def trusted_devices(
        self,
        info: Info[Context],
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[TrustedDevice]:
        auth, context = auth_of(info), info.context
        page = await stored.trusted(
            auth.database,
            auth.paginator,
            context.tenant_id,
            context.caller.user_id,
            auth.platform.clock.now(),
            PageArgs(first, after, last, before),
        )
        return Connection.of(page, TrustedDevice.of)


@strawberry.type
class DeviceMutations:
    @strawberry.mutation(
        description="As if you had never signed in on it. False if there was none.", extensions=[Requires(MANAGE)]
    )
    async def remove_trusted_device(self, info: Info[Context], id: ID) -> bool:  # noqa: A002
        return await devices.remove_device(auth_of(info), info.context, parse_id(id, "id"))
