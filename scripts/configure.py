"""The configuration of a service: what is in force, and how it is changed. Nothing has to be restarted.

    make configure NAME=auth                                        # prints it
    make configure NAME=auth TENANT=demo REASON="…" < values.json   # sets the fields in the file; null ends an override

With MONGO_URL and REDIS_URL set it works on that installation, else on the stack that is running here.
"""

import asyncio
import json
import os
import stat
import sys
from getpass import getuser
from importlib import import_module

from libs.core.config import Config, ConfigModel
from libs.core.errors import CoreError
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from scripts import stack
from scripts.process import Failure


async def main() -> None:
    model, tenant_id = _model(os.environ.get("NAME", "")), os.environ.get("TENANT") or None
    environment = os.environ if "MONGO_URL" in os.environ else stack.environment()
    namespace = environment.get("NAMESPACE", "")
    mongo = Mongo.connect(environment["MONGO_URL"], service="core", namespace=namespace)
    redis = Redis.connect(environment["REDIS_URL"], namespace=namespace)
    try:
        async with Config(mongo, redis, [model]) as config:
            if given := _given():
                await _set(config, model, tenant_id, given)
            print(config.get(model, tenant_id).model_dump_json(indent=2))
    finally:
        await redis.close()
        await mongo.close()


async def _set(config: Config, model: type[ConfigModel], tenant_id: str | None, given: dict[str, object]) -> None:
    try:
        await config.set(
            model,
            {name: value for name, value in given.items() if value is not None},
            unset=[name for name, value in given.items() if value is None],
            tenant_id=tenant_id,
            actor=getuser(),
            reason=os.environ.get("REASON", ""),
            expected_version=config.version(model, tenant_id),
        )
    except CoreError as error:
        field = error.details.get("field")
        raise Failure(f"{field}: {error.message}" if field else error.message) from None


def _model(name: str) -> type[ConfigModel]:
    for service in stack.processes():
        for model in vars(import_module(f"{stack.package(service)}.settings")).values():
            is_model = isinstance(model, type) and issubclass(model, ConfigModel) and model is not ConfigModel
            if is_model and model.config_name == name:
                return model  # type: ignore[no-any-return]
    if not name:
        raise Failure("say which: make configure NAME=auth")
    raise Failure(f"there is no configuration {name!r}: those of services have their names, such as auth")


def _given() -> dict[str, object]:
    """What a file or a pipe brings; nothing, if there is neither."""
    kind = os.fstat(sys.stdin.fileno()).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISFIFO(kind)):
        return {}
    try:
        given = json.loads(sys.stdin.read() or "{}")
    except ValueError as error:
        raise Failure(f"standard input is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise Failure("standard input is not a JSON object of fields and values")
    return given


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except Failure as failure:
        sys.exit(str(failure))
