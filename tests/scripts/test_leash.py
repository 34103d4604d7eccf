import asyncio
import sys
from pathlib import Path

import pytest

from libs.core.testing import eventually

LEASH = Path(__file__).parents[2] / "scripts" / "leash.py"

BY_THE_KERNEL = [sys.executable, "-I", "-S", str(LEASH)]
BY_A_WATCHER = [
    *(sys.executable, "-c"),
    "import leash, os, sys; leash.watch(int(sys.argv[1])); os.execvp(sys.argv[2], sys.argv[2:])",
]
PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([*sys.argv[1:], str(os.getpid()), "sleep", "60"])
print(child.pid, flush=True)
time.sleep(60)
"""


def sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep")


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
class TestLeash:
    @pytest.mark.parametrize("leash", [BY_THE_KERNEL, BY_A_WATCHER], ids=["by the kernel", "by a watcher"])
    async def test_ends_with_its_parent(self, leash: list[str]) -> None:
        parent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PARENT, *leash), cwd=LEASH.parent, stdout=asyncio.subprocess.PIPE
        )
        assert parent.stdout is not None
        child = int(await parent.stdout.readline())
        await eventually(lambda: sleeps(child))
        parent.kill()
        await parent.wait()
        await eventually(lambda: ended(child))
