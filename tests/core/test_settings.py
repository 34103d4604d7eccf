import pytest

from libs.core.errors import Misconfigured
from libs.core.settings import Settings

SECRET = "s" * 32


class OurSettings(Settings):
    service: str = "ours"
    port: int = 9999


class TestLoad:
    def test_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CURSOR_SECRET", SECRET)
        monkeypatch.setenv("PORT", "1234")
        assert (OurSettings.load().port, OurSettings.load().mode) == (1234, "production")

    def test_every_wrong_variable_is_named_in_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PORT", "http")
        monkeypatch.setenv("NAMESPACE", "Not:Plain")
        with pytest.raises(Misconfigured, match=r"^(?=.*PORT: )(?=.*NAMESPACE: )[^\n]+$"):
            OurSettings.load()

    @pytest.mark.parametrize("secret", [None, "short", "development-only-secret-do-not-deploy"])
    def test_production_refuses_what_everybody_knows(self, monkeypatch: pytest.MonkeyPatch, secret: str | None) -> None:
        monkeypatch.delenv("CURSOR_SECRET", raising=False)
        if secret:
            monkeypatch.setenv("CURSOR_SECRET", secret)
        with pytest.raises(Misconfigured, match="CURSOR_SECRET must be set"):
            OurSettings.load()

    def test_development_does_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MODE", "development")
        assert OurSettings.load().development

    def test_secrets_are_not_printed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CURSOR_SECRET", SECRET)
        assert SECRET not in repr(OurSettings.load())
