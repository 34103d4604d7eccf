"""Seals the secret of an identity provider's client, for the configuration: it is read from standard input.

    make provider-secret PRESET=google CLIENT_ID=….apps.googleusercontent.com
    make provider-secret ISSUER=https://login.example.com CLIENT_ID=platform < secret.txt

With the AUTH_KEY of the environment, which auth must have too; without one, with that of development.
"""

import os
import sys
from getpass import getpass

from libs.core.crypto import SecretBox
from services.auth.domain.providers import PRESETS, secret_owner
from services.auth.providers import PURPOSE
from services.auth.settings import AuthSettings


def main() -> None:
    preset, issuer, client_id = (os.environ.get(name, "") for name in ("PRESET", "ISSUER", "CLIENT_ID"))
    if preset and preset not in PRESETS:
        sys.exit(f"PRESET is one of {', '.join(PRESETS)}")
    issuer = issuer or (PRESETS[preset].issuer if preset in PRESETS else "")
    if not issuer or not client_id:
        sys.exit("say for whom: make provider-secret PRESET=google (or ISSUER=https://…) CLIENT_ID=…")
    secret = (getpass("The client's secret: ") if sys.stdin.isatty() else sys.stdin.read()).strip()
    if not secret:
        sys.exit("there is no secret on standard input")
    keys = os.environ.get("AUTH_KEY") or AuthSettings.model_fields["auth_key"].default.get_secret_value()
    print(SecretBox(keys, purpose=PURPOSE).seal(secret, owner=secret_owner(issuer, client_id)).decode())


if __name__ == "__main__":
    main()
