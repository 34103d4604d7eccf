"""What a machine that lacks something is told. The making itself is tested by everything that runs."""

from pathlib import Path

import pytest

from scripts import environment

OFFLINE = (
    "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError('<pip._vendor"
    ".HTTPConnection object at 0x7f>: Failed to establish a new connection: [Errno 111] Connection refused')': /x/"
)


class TestRequireNode:
    def test_none(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(
            SystemExit, match="Node 20 or newer with npm is needed for the tests, and is not on the PATH"
        ):
            environment.require_node()

    def test_too_old(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in ("node", "npm"):
            (tmp_path / name).write_text("#!/bin/sh\necho v18.19.0\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(SystemExit, match=r"Node 20 or newer is needed for the tests, and node is v18\.19\.0"):
            environment.require_node()


class TestReason:
    @pytest.mark.parametrize(
        ("said", "reason"),
        [
            ([OFFLINE, "ERROR: No match"], "Failed to establish a new connection: [Errno 111] Connection refused"),
            (["WARNING: something", "ERROR: Could not find a version", "ERROR: No match"], "Could not find a version"),
            (["npm error code E404", "npm error 404 Not Found - GET x", "npm error 404"], "404 Not Found - GET x"),
            (["Traceback", "OSError: disk full"], "OSError: disk full"),
            ([], "it gave no reason"),
        ],
        ids=["pip offline", "pip", "npm", "a traceback", "silence"],
    )
    def test_is_one_line(self, said: list[str], reason: str) -> None:
        assert environment.reason(said) == reason
