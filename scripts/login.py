"""Signs somebody in on the running stack and prints the access token; so does `make token`.

USER=alice [PASSWORD=…] [TENANT=demo] python -m scripts.login
"""

import os
import sys

import httpx

from scripts import stack
from scripts.process import Failure

LOGIN = """
mutation ($identifier: String!, $password: String!) {
  login(input: {identifier: $identifier, password: $password}) {
    ... on SignedIn { accessToken }
    ... on SecondFactorRequired { methods }
    ... on Problem { code message }
  }
}
"""


def login(url: str, identifier: str, password: str, tenant: str) -> str:
    """An access token. `Failure` says why there is none."""
    body = {"query": LOGIN, "variables": {"identifier": identifier, "password": password}}
    try:
        answer = httpx.post(f"{url}/graphql", json=body, headers={"x-tenant": tenant}, timeout=15).json()
    except (httpx.HTTPError, ValueError) as error:
        raise Failure(f"auth does not answer at {url}: {error}") from error
    if "errors" in answer:
        raise Failure(answer["errors"][0]["message"])
    outcome = answer["data"]["login"]
    if "accessToken" in outcome:
        return str(outcome["accessToken"])
    raise Failure(outcome.get("message") or f"a second factor is asked for: {', '.join(outcome['methods'])}")


def main() -> None:
    password, tenant = (os.environ.get(name) for name in ("PASSWORD", "TENANT"))
    try:
        stack.environment()  # says so if nothing runs
        print(login(stack.AUTH_URL, os.environ["USER"], password or stack.DEMO_PASSWORD, tenant or stack.DEMO_TENANT))
    except Failure as failure:
        sys.exit(str(failure))


if __name__ == "__main__":
    main()
