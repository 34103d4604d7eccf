"""What a user is reached at and signs in by: added once it was verified."""

from services.auth.commands.identifiers import add, rename, verify
from services.auth.commands.profile import me
from services.auth.domain.identifiers import parse_email, parse_phone, parse_username
from services.auth.domain.users import User
from tests.auth.conftest import House
from tests.auth.test_login import log_in
from tests.auth.test_registration import refused

NEW = parse_email("new@example.com", "email")


class TestAdd:
    async def test_it_counts_once_it_was_verified(self, house: House) -> None:
        user = await house.user("ann")
        context = house.context(user)
        flow = await add(house.auth, context, NEW)
        assert (await me(house.auth, context)).email == "ann@example.com"
        await verify(house.auth, context, flow.token, await house.code())
        assert (await me(house.auth, context)).email == "new@example.com"
        assert await log_in(house, "new@example.com")
        assert await refused(log_in(house, "ann@example.com")) == "INVALID_CREDENTIALS"

    async def test_the_address_before_is_told(self, house: House) -> None:
        context = house.context(await house.user("ann"))
        flow = await add(house.auth, context, NEW)
        await verify(house.auth, context, flow.token, await house.code())
        notice = (await house.sent())[-1]
        assert (notice.recipient, notice.params["what"]) == ("ann@example.com", "email_changed")

    async def test_a_phone_beside_it(self, house: House) -> None:
        context = house.context(await house.user("ann"))
        flow = await add(house.auth, context, parse_phone("+43 664 1234567", "phone"))
        user = await verify(house.auth, context, flow.token, await house.code())
        assert (user.email, user.phone) == ("ann@example.com", "+436641234567")

    async def test_whether_it_is_anothers_only_they_are_told(self, house: House) -> None:
        await house.user("new")
        context = house.context(await house.user("ann"))
        flow = await add(house.auth, context, NEW)
        assert (await house.sent())[-1].template == "already_registered"
        assert await refused(verify(house.auth, context, flow.token, "123456")) == "CODE_WRONG"

    async def test_with_a_flow_that_another_user_began(self, house: House) -> None:
        ann, eve = await house.user("ann"), await house.user("eve")
        flow = await add(house.auth, house.context(ann), NEW)
        assert await refused(verify(house.auth, house.context(eve), flow.token, await house.code())) == "FLOW_OVER"


class TestRename:
    async def test_a_username_that_is_taken(self, house: House) -> None:
        await house.user("ben")
        context = house.context(await house.user("ann"))
        assert await refused(rename(house.auth, context, parse_username("Ben", "username"), None)) == "USERNAME_TAKEN"

    async def test_what_is_left_out_stays(self, house: House) -> None:
        context = house.context(await house.user("ann"))
        user: User = await rename(house.auth, context, None, "Ann Smith")
        assert (user.username, user.name) == ("ann", "Ann Smith")
        assert (await me(house.auth, context)).name == "Ann Smith"
