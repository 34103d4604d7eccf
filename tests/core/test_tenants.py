import asyncio

import pytest

from libs.core.audit import INDEXES as AUDIT_INDEXES, AuditLog
from libs.core.errors import Forbidden, InvalidInput, NotFound, Refusal
from libs.core.events.event import Event
from libs.core.events.outbox import OUTBOX_INDEXES, Outbox
from libs.core.migrations import migrate
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.tenants import INDEXES, Brand, Currency, SystemWallet, Tenant, Tenants, host_name, system_wallet_id
from libs.core.testing import eventually

EUR = Currency("EUR", 2)


def tenants_of(mongo: Mongo, redis: Redis, default: str = "") -> Tenants:
    """As another process sees them."""
    return Tenants(mongo, redis, Outbox(mongo.core), default=default)


@pytest.fixture
async def tenants(mongo: Mongo, redis: Redis) -> Tenants:
    await migrate(mongo.core, (*INDEXES, *OUTBOX_INDEXES, *AUDIT_INDEXES))
    return tenants_of(mongo, redis)


def acme(**fields: object) -> Tenant:
    return Tenant(**{"id": "acme", "name": "Acme", "currencies": {"EUR": EUR}, **fields})  # type: ignore[arg-type]


async def told(mongo: Mongo) -> list[str]:
    """The types of the events in the outbox, in their order."""
    lines = [row["events"] async for row in mongo.core["outbox"].find({}, sort=[("at", 1)])]
    return [Event.from_json(line).type for text in lines for line in text.splitlines()[1::2]]


class TestCreate:
    async def test_found_audited_and_told(self, mongo: Mongo, redis: Redis, tenants: Tenants) -> None:
        await tenants.create(acme(brands={"b1": Brand("b1", "Acme Casino")}), actor="root")
        assert await tenants_of(mongo, redis).get("acme") == acme(brands={"b1": Brand("b1", "Acme Casino")})
        assert await told(mongo) == ["tenant.created", "tenant.currency_added", "tenant.brand_added"]
        (row,) = await AuditLog(mongo.core, "tenants").read()
        assert (row.action, row.resource, row.actor) == ("tenant.create", "acme", "root")

    async def test_same_id(self, tenants: Tenants) -> None:
        await tenants.create(acme(), actor="root")
        with pytest.raises(Refusal, match="of this id") as refused:
            await tenants.create(acme(name="Another"), actor="root")
        assert refused.value.code == "TENANT_EXISTS"

    async def test_host_of_another(self, mongo: Mongo, tenants: Tenants) -> None:
        await tenants.create(acme(hosts=("play.example",)), actor="root")
        with pytest.raises(Refusal) as refused:
            await tenants.create(acme(id="other", hosts=("a.example", "play.example")), actor="root")
        assert refused.value.code == "HOST_TAKEN"
        assert await told(mongo) == ["tenant.created", "tenant.currency_added"]

    async def test_two_without_hosts(self, tenants: Tenants) -> None:
        await tenants.create(acme(), actor="root")
        await tenants.create(acme(id="other"), actor="root")
        assert [tenant.id for tenant in await tenants.all()] == ["acme", "other"]

    async def test_at_the_same_time(self, mongo: Mongo, tenants: Tenants) -> None:
        made = await asyncio.gather(*(tenants.create(acme(), actor="root") for _ in range(5)), return_exceptions=True)
        assert [result for result in made if isinstance(result, Tenant)] == [acme()]
        assert await told(mongo) == ["tenant.created", "tenant.currency_added"]

    @pytest.mark.parametrize(
        "fields",
        [
            pytest.param({"id": "a.b"}, id="an id that would be a path in a document"),
            pytest.param({"id": "$where"}, id="an id that would be an operator"),
            pytest.param({"id": ""}, id="no id"),
            pytest.param({"name": ""}, id="no name"),
            pytest.param({"name": "a\nb"}, id="a name that would break a log line"),
            pytest.param({"time_zone": "Mars/Olympus"}, id="a time zone that is none"),
            pytest.param({"time_zone": "../../etc/passwd"}, id="a time zone that is a path"),
            pytest.param({"hosts": ("https://play.example",)}, id="a host with a scheme"),
            pytest.param({"hosts": ("play.example:80",)}, id="a host with a port"),
            pytest.param({"hosts": ("Play.example",)}, id="a host that would never be looked up"),
        ],
    )
    def test_malformed(self, fields: dict[str, object]) -> None:
        with pytest.raises(InvalidInput):
            acme(**fields)


class TestCurrencies:
    async def test_added_once(self, mongo: Mongo, redis: Redis, tenants: Tenants) -> None:
        await tenants.create(acme(), actor="root")
        await asyncio.gather(*(tenants.add_currency("acme", Currency("BTC", 8), actor="root") for _ in range(5)))
        assert (await told(mongo)).count("tenant.currency_added") == 2
        assert await tenants_of(mongo, redis).currency("acme", "BTC") == Currency("BTC", 8)

    async def test_scale_never_changes(self, mongo: Mongo, redis: Redis, tenants: Tenants) -> None:
        await tenants.create(acme(), actor="root")
        with pytest.raises(Refusal) as refused:
            await tenants.add_currency("acme", Currency("EUR", 3), actor="root")
        assert refused.value.code == "CURRENCY_SCALE_IMMUTABLE"
        assert await tenants_of(mongo, redis).currency("acme", "EUR") == EUR

    async def test_two_scales_at_the_same_time(self, mongo: Mongo, redis: Redis, tenants: Tenants) -> None:
        await tenants.create(acme(), actor="root")
        scales = range(2, 8)
        added = await asyncio.gather(
            *(tenants.add_currency("acme", Currency("BTC", scale), actor="root") for scale in scales),
            return_exceptions=True,
        )
        (won,) = [tenant.currencies["BTC"] for tenant in added if isinstance(tenant, Tenant)]
        assert await tenants_of(mongo, redis).currency("acme", "BTC") == won

    async def test_not_in_use(self, tenants: Tenants) -> None:
        await tenants.create(acme(), actor="root")
        with pytest.raises(InvalidInput, match="not in use here"):
            await tenants.currency("acme", "USD")

    async def test_added_by_another_process(self, mongo: Mongo, redis: Redis, tenants: Tenants) -> None:
        await tenants.create(acme(), actor="root")
        await tenants_of(mongo, redis).add_currency("acme", Currency("USD", 2), actor="root")
        assert await tenants.currency("acme", "USD") == Currency("USD", 2)

    async def test_of_an_unknown_tenant(self, tenants: Tenants) -> None:
        with pytest.raises(NotFound):
            await tenants.add_currency("nobody", EUR, actor="root")

    @pytest.mark.parametrize(("code", "scale"), [("eur", 2), ("E.R", 2), ("EUR", -1), ("EUR", 19), ("EUR", True)])
    def test_malformed(self, code: str, scale: int) -> None:
        with pytest.raises(InvalidInput):
            Currency(code, scale)


class TestBrands:
    async def test_added_once(self, mongo: Mongo, tenants: Tenants) -> None:
        await tenants.create(acme(), actor="root")
        await tenants.add_brand("acme", Brand("b1", "Casino"), actor="root")
        await tenants.add_brand("acme", Brand("b1", "Casino"), actor="root")
        assert (await told(mongo)).count("tenant.brand_added") == 1

    async def test_id_of_another(self, tenants: Tenants) -> None:
        await tenants.create(acme(brands={"b1": Brand("b1", "Casino")}), actor="root")
        with pytest.raises(Refusal):
            await tenants.add_brand("acme", Brand("b1", "Sports"), actor="root")


class TestSuspend:
    async def test_and_resume(self, mongo: Mongo, tenants: Tenants) -> None:
        await tenants.create(acme(), actor="root")
        assert not (await tenants.suspend("acme", actor="root", reason="unpaid")).active
        assert (await tenants.resume("acme", actor="root", reason="paid")).active
        assert (await told(mongo))[-2:] == ["tenant.suspended", "tenant.resumed"]
        assert [row.reason for row in await AuditLog(mongo.core, "tenants").read()][-2:] == ["unpaid", "paid"]

    async def test_twice(self, mongo: Mongo, tenants: Tenants) -> None:
        await tenants.create(acme(), actor="root")
        await tenants.suspend("acme", actor="root", reason="unpaid")
        await tenants.suspend("acme", actor="root", reason="unpaid")
        assert (await told(mongo)).count("tenant.suspended") == 1


@pytest.fixture
async def two(tenants: Tenants) -> Tenants:
    """`acme` at play.example, `other` at no address of its own, and `gone`, which is suspended."""
    await tenants.create(acme(hosts=("play.example",)), actor="root")
    await tenants.create(acme(id="other"), actor="root")
    await tenants.create(acme(id="gone"), actor="root")
    await tenants.suspend("gone", actor="root", reason="unpaid")
    return tenants


class TestResolve:
    @pytest.mark.parametrize(
        ("host", "header", "expected"),
        [
            pytest.param("play.example", None, "acme", id="by its address"),
            pytest.param("Play.Example.:443", None, "acme", id="by its address, as a browser may write it"),
            pytest.param("play.example", "acme", "acme", id="by both, which agree"),
            pytest.param("10.0.0.7:9002", "other", "other", id="by the header, at nobody's address"),
            pytest.param("10.0.0.7:9002", "", "acme", id="by neither: the default"),
        ],
    )
    async def test_found(
        self, mongo: Mongo, redis: Redis, two: Tenants, host: str, header: str | None, expected: str
    ) -> None:
        tenants = tenants_of(mongo, redis, default="acme")
        await tenants.reload()
        assert (await tenants.resolve(host, header)).id == expected

    async def test_refusals_do_not_tell_apart(self, two: Tenants) -> None:
        asked = [
            ("play.example", "other"),  # exists, under another address
            ("play.example", "nobody"),  # does not exist
            ("10.0.0.7", "gone"),  # suspended
            ("10.0.0.7", "nobody"),
            ("10.0.0.7", "$ne"),
            ("10.0.0.7", "a" * 10_000),
            ("10.0.0.7", None),  # and no default
        ]
        answers = await asyncio.gather(*(two.resolve(*each) for each in asked), return_exceptions=True)
        assert {(type(answer), str(answer)) for answer in answers} == {
            (NotFound, "no tenant is served here under this address and x-tenant header")
        }

    async def test_created_by_another_process(self, mongo: Mongo, redis: Redis, tenants: Tenants) -> None:
        await tenants_of(mongo, redis).create(acme(), actor="root")
        assert (await tenants.resolve("10.0.0.7", "acme")).id == "acme"


class TestTimeZone:
    async def test_of_those_that_are_known(self, mongo: Mongo, redis: Redis, tenants: Tenants) -> None:
        await tenants.create(acme(time_zone="Europe/Malta"), actor="root")
        async with tenants_of(mongo, redis) as watching:
            assert watching.time_zone("acme") == "Europe/Malta"
            assert watching.time_zone("unheard-of") == "UTC"


class TestAdmit:
    @pytest.mark.parametrize(("host", "header"), [("10.0.0.7", None), ("10.0.0.7", "other"), ("", "")])
    async def test_not_contradicted(self, two: Tenants, host: str, header: str | None) -> None:
        assert (await two.admit("other", host, header)).id == "other"

    @pytest.mark.parametrize(
        ("token", "host", "header"),
        [
            pytest.param("other", "10.0.0.7", "acme", id="another header"),
            pytest.param("other", "play.example", None, id="another's address"),
            pytest.param("other", "play.example", "other", id="another's address, though the header agrees"),
            pytest.param("gone", "10.0.0.7", None, id="suspended"),
            pytest.param("nobody", "10.0.0.7", None, id="unknown"),
        ],
    )
    async def test_refused(self, two: Tenants, token: str, host: str, header: str | None) -> None:
        with pytest.raises(Forbidden):
            await two.admit(token, host, header)


class TestWatching:
    async def test_suspension_reaches_other_processes(self, mongo: Mongo, redis: Redis, two: Tenants) -> None:
        async with tenants_of(mongo, redis) as other:
            await two.suspend("acme", actor="root", reason="unpaid")
            await eventually(lambda: _refused(other, "acme"))

    async def test_untold_it_is_found_by_the_poll(self, mongo: Mongo, redis: Redis, two: Tenants) -> None:
        async with Tenants(mongo, redis, Outbox(mongo.core), poll_s=0.05) as other:
            await mongo.core["tenants"].update_one({"_id": "acme"}, {"$set": {"status": "suspended"}})
            await eventually(lambda: _refused(other, "acme"))


async def _refused(tenants: Tenants, tenant_id: str) -> bool:
    try:
        await tenants.admit(tenant_id, "", None)
    except Forbidden:
        return True
    return False


class TestSystemWalletId:
    def test_tells_all_apart(self) -> None:
        names = [(t, k, c) for t in ("acme", "other") for k in SystemWallet for c in ("EUR", "USD")]
        assert len({system_wallet_id(*name) for name in names}) == len(names)

    def test_never_changes(self) -> None:
        assert system_wallet_id("acme", SystemWallet.HOUSE, "EUR") == "a8491e38-0e57-5ba0-b77d-5ed3ba7838d8"


@pytest.mark.parametrize(
    ("header", "name"),
    [("a.example", "a.example"), ("A.example:80", "a.example"), ("a.example.", "a.example"), ("", "")],
)
def test_host_name(header: str, name: str) -> None:
    assert host_name(header) == name
