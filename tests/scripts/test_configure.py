"""`make configure`: what is in force, and changing it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from libs.core.mongo import Mongo
from libs.core.redis import Redis

Configure = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def configure(mongo: Mongo, redis: Redis, namespace: str) -> Configure:
    def run(given: Any = None, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "scripts.configure"],
            input="" if given is None else given if isinstance(given, str) else json.dumps(given),
            env={**os.environ, "NAMESPACE": namespace, "NAME": "auth", "REASON": "a test", **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_shows_and_sets(configure: Configure) -> None:
    assert json.loads(configure().stdout)["return_urls"] == []
    configure({"return_urls": ["https://app.example/"]}, TENANT="demo")
    assert json.loads(configure(TENANT="demo").stdout)["return_urls"] == ["https://app.example/"]
    assert json.loads(configure({"return_urls": None}, TENANT="demo").stdout)["return_urls"] == []


@pytest.mark.parametrize(
    ("given", "environment", "why"),
    [
        ({"return_urls": ["javascript:alert(1)"]}, {}, "return_urls"),
        ({"return_urls": []}, {"REASON": ""}, "reason"),
        ({"return_urls": []}, {"NAME": "nothing"}, "no configuration"),
        ("{", {}, "not JSON"),
        ("[1]", {}, "not a JSON object"),
    ],
)
def test_refuses(configure: Configure, given: Any, environment: dict[str, str], why: str) -> None:
    refused = configure(given, **environment)
    assert refused.returncode == 1
    assert why in refused.stderr
    assert "Traceback" not in refused.stderr
