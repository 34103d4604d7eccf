"""`make health`: every service's own view of what it needs, as a table."""

import sys
from http import HTTPStatus

from scripts import stack
from scripts.process import Failure, Server

GREEN, RED, PLAIN = ("\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


def main() -> None:
    environment = stack.environment()
    ready = [_show(stack.server(name, environment)) for name in stack.processes()]
    sys.exit(0 if all(ready) else 1)


def _show(service: Server) -> bool:
    status, body = stack.readiness(service.url)
    ready = status == HTTPStatus.OK
    said = "ready" if ready else "not ready" if status else f"no answer ({body})"
    print(f"{GREEN if ready else RED}{service.name:14}{said:12}{PLAIN} {service.url}")
    for name, check in (body.get("checks", {}) if isinstance(body, dict) else {}).items():
        details = "  ".join(f"{key}={value}" for key, value in check.items() if key != "status")
        print(f"  {name:12}{check.get('status', '?'):12} {details}".rstrip())
    return ready


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(str(failure))
