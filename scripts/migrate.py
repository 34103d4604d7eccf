"""`make migrate`: brings the databases to what the code in this checkout expects. A service also does so as it starts.

On the running stack, or on the databases that MONGO_URL and NAMESPACE name.
"""

import asyncio
import importlib
import os
import sys

from libs.core.app import migrate_databases
from libs.core.errors import CoreError
from libs.core.mongo import Mongo
from scripts import stack
from scripts.process import Failure


async def main() -> None:
    for name in stack.services():
        parts = importlib.import_module(f"services.{name}.app").app.state.parts
        mongo = Mongo.connect(parts.settings.mongo_url, service=name, namespace=parts.settings.namespace)
        try:
            await migrate_databases(mongo, parts)
        finally:
            await mongo.close()
        print(f"{name}: {mongo.db.name} and {mongo.core.name} are at the newest version")


if __name__ == "__main__":
    try:
        if not os.environ.get("MONGO_URL"):
            os.environ.update(stack.environment())
        asyncio.run(main())
    except (Failure, CoreError) as error:
        sys.exit(str(error))
