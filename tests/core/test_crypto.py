import pytest
from hypothesis import given, strategies as st

from libs.core.crypto import SecretBox
from libs.core.errors import Misconfigured

OLD, NEW = "the-key-of-an-older-release-0001", "the-key-of-a-newer-release-00002"


def box(keys: str = NEW, purpose: str = "letters") -> SecretBox:
    return SecretBox(keys, purpose=purpose)


class TestSeal:
    @given(st.text(), st.text().filter(lambda owner: "\0" not in owner))
    def test_opens_for_its_owner(self, secret: str, owner: str) -> None:
        assert box().open(box().seal(secret, owner=owner), owner=owner) == secret

    def test_never_the_same_twice(self) -> None:
        assert box().seal("code", owner="a") != box().seal("code", owner="a")

    def test_an_owner_that_could_pass_for_another(self) -> None:
        with pytest.raises(ValueError, match="no NUL"):
            box().seal("c", owner="a\0b")

    def test_without_a_key(self) -> None:
        with pytest.raises(Misconfigured, match="no key to seal letters with"):
            box(" , ")


class TestOpen:
    def test_what_is_sealed_for_another(self) -> None:
        with pytest.raises(Misconfigured, match="letters: this was sealed for another owner"):
            box().open(box().seal("code", owner="ann"), owner="bob")

    def test_the_same_key_for_another_purpose(self) -> None:
        with pytest.raises(Misconfigured, match="not among these"):
            box(purpose="cheques").open(box().seal("code", owner="ann"), owner="ann")

    @pytest.mark.parametrize("forged", [b"", b"gAAAA", "naïve", b"\xff"])
    def test_what_nobody_sealed(self, forged: bytes | str) -> None:
        with pytest.raises(Misconfigured):
            box().open(forged, owner="ann")

    def test_what_was_altered(self) -> None:
        sealed = bytearray(box().seal("code", owner="ann"))
        sealed[40] ^= 1
        with pytest.raises(Misconfigured):
            box().open(bytes(sealed), owner="ann")

    def test_webhook_secrets_of_older_releases(self) -> None:
        sealed = (
            "gAAAAABpVbkA7OY2HAYkICqftDiIi2oRIhuDXpLMWWK_lsGQ6gYTgdjEHU6AGO1yTiHlsMPDwII6-"
            "WJoU96rBrDbwN-gmC0GKnLgETJbVAuFb8f2y8SXE38="
        )
        assert box(OLD, "webhook secrets").open(sealed, owner="demo:e1") == "whsec_old"


class TestKeyChange:
    def test_every_step_of_a_change_opens_what_the_others_sealed(self) -> None:
        before, first, second, after = box(OLD), box(f"{OLD},{NEW}"), box(f"{NEW}, {OLD}"), box(NEW)
        for sealing, opening in [(before, first), (first, before), (first, second), (second, first), (second, after)]:
            assert opening.open(sealing.seal("code", owner="ann"), owner="ann") == "code"

    def test_the_key_id_tells_what_is_due(self) -> None:
        assert box(OLD).key_id == box(f"{OLD},{NEW}").key_id != box(f"{NEW},{OLD}").key_id
        assert box(OLD).key_id != box(OLD, "cheques").key_id
