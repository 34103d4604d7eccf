"""The auth service: wiring only. Run it with `python -m libs.core.server services.auth.app:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libs.core.app import Platform, create_app
from libs.core.audit import INDEXES as AUDIT_INDEXES
from libs.core.crypto import SecretBox
from libs.core.pagination import Paginator
from services.auth import jobs, store, subscribers
from services.auth.breaches import PasswordRules
from services.auth.commands.auth import Auth
from services.auth.groups import Groups
from services.auth.keys import SigningKeys
from services.auth.messages import Messages
from services.auth.passwords import Hasher
from services.auth.places import Places
from services.auth.providers import Providers
from services.auth.routes import ROUTERS, messages
from services.auth.schema import schema
from services.auth.settings import AuthConfig, AuthSettings
from services.auth.store.messages import DEVELOPMENT_INDEXES
from services.auth.throttle import Throttle

settings = AuthSettings.load()


@asynccontextmanager
async def open_auth(platform: Platform) -> AsyncIterator[Auth]:
    box = SecretBox(settings.auth_key.get_secret_value(), purpose="auth secrets")
    with PasswordRules(settings.breached_passwords) as rules, Places(settings.place_database) as places:
        async with (
            Hasher(workers=settings.hash_workers or None) as hasher,
            SigningKeys(
                platform.mongo.db, platform.redis, platform.clock, box, learnt=platform.identity.learn_keys
            ) as keys,
            Providers(
                settings.auth_key.get_secret_value(), platform.clock, development=settings.development
            ) as providers,
        ):
            yield Auth(
                platform=platform,
                settings=settings,
                paginator=Paginator(settings.cursor_secret.get_secret_value()),
                box=box,
                hasher=hasher,
                rules=rules,
                keys=keys,
                throttle=Throttle(platform.redis, platform.config),
                messages=Messages(platform.outbox, platform.clock, settings.message_key.get_secret_value()),
                places=places,
                providers=providers,
                groups=Groups(platform.mongo),
            )


app = create_app(
    settings,
    schema=schema,
    indexes=(*store.INDEXES, *AUDIT_INDEXES, *(DEVELOPMENT_INDEXES if settings.development else ())),
    configs=[AuthConfig],
    routers=(*ROUTERS, *((messages.router,) if settings.development else ())),
    open=open_auth,
    subscribers=subscribers.of_auth,
    jobs=jobs.of_auth,
    keeps_memory=True,  # argon2's
)
