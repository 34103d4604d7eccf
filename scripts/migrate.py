"""Brings the databases of all services to what this code expects, before a release (`make migrate`).

Services do the same when they start; here the slow part, building indexes and migrating documents, is done ahead. With
MONGO_URL set it works on that installation, else on the stack that is running here.
"""

import asyncio
import importlib
import os
import sys

from libs.core.errors import CoreError
from scripts import stack
from scripts.process import Failure

# Another process may be in the middle of a long index build.
WAIT_S = 3600.0


def main() -> None:
    if "MONGO_URL" not in os.environ:
        os.environ.update(stack.environment())
    for service in stack.processes():
        app = importlib.import_module(f"{stack.package(service)}.app").app
        print(f"{service}: version {asyncio.run(app.migrate(wait_s=WAIT_S))}")


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(str(failure))
    except CoreError as error:
        sys.exit(error.message)
