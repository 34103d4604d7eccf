"""A tenant for processes that are measured."""

from collections.abc import Mapping

from libs.core.events import Outbox
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.tenants import Currency, Tenant, Tenants


async def create_tenant(tenant_id: str, environment: Mapping[str, str]) -> None:
    """On the servers, and in the namespace, of a process with this environment."""
    mongo = Mongo.connect(environment["MONGO_URL"], service="core", namespace=environment["NAMESPACE"])
    redis = Redis.connect(environment["REDIS_URL"], namespace=environment["NAMESPACE"])
    tenant = Tenant(tenant_id, "Bench", currencies={"EUR": Currency("EUR", 2)})
    await Tenants(mongo, redis, Outbox(mongo.core)).create(tenant, actor="bench")
    await redis.close()
    await mongo.close()
