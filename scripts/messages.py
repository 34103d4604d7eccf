"""What the running stack would have sent to its users, the newest last (`make messages`).

    make messages                           # the last twenty
    make messages TO=anna@example.com       # those to one address or number; TENANT=demo says whose

Until a notification service sends them, and in development alone, auth keeps them for a day.
"""

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request

from scripts import stack
from scripts.process import Failure


def main() -> None:
    auth = stack.server("auth", stack.environment())
    wanted = {"recipient": to} if (to := os.environ.get("TO")) else {}
    request = urllib.request.Request(
        f"{auth.url}/development/messages?{urllib.parse.urlencode(wanted)}",
        headers={"x-tenant": os.environ.get("TENANT") or stack.DEMO_TENANT},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            messages = json.load(response)
    except urllib.error.HTTPError as error:
        raise Failure(f"auth answers {error.code}: {error.read().decode()[:200]}") from None
    except OSError as error:
        raise Failure(f"auth does not answer at {auth.url}: {error}") from None
    for message in reversed(messages):
        said = "  ".join(f"{name}={value}" for name, value in message["params"].items() if value)
        print(f"{message['channel']:6}{message['recipient']:30} {message['template']:20} {said}".rstrip())


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(str(failure))
