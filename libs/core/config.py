"""Configuration: typed models with defaults in the code, overrides in MongoDB, in force everywhere within moments.

    class PaymentLimits(ConfigModel, name="payment.limits"):
        max_transfer_minor: Annotated[int, Field(gt=0)] = 1_000_000

    async with Config(mongo, redis, [PaymentLimits]) as config:
        config.get(PaymentLimits).max_transfer_minor                    # from memory
        await config.set(PaymentLimits, {"max_transfer_minor": 5}, actor=user_id, reason="INC-7", expected_version=0)

A model's overrides are one document of `core_service.service_configs`, for the platform and for single tenants:

    {_id: "payment.limits", overrides: {"*": {version: 3, values: {max_transfer_minor: 5}}, "tenant-1": {…}}}

A tenant's configuration is the defaults, then the platform's overrides, then the tenant's. Values are JSON, are held
to the model strictly (no "5" for 5, no unknown field), and are for every admin to read: no secrets here.

Changes are told over Redis pub/sub; should that be missed, a slow poll finds them. A document that somebody wrote by
hand is checked as well: what is invalid in it is logged and counted with the field's name, and what was in force stays
in force. At a start nothing was in force yet, and the defaults may be laxer than what somebody meant to set: then the
process does not start (`Misconfigured`).
"""

import asyncio
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final, Self, TypeVar, cast

import bson
import structlog
from bson.errors import InvalidDocument
from prometheus_client import Counter
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticSerializationError, to_json
from pymongo.errors import PyMongoError

from libs.core.audit import INDEXES as AUDIT_INDEXES, AuditLog, AuditRow
from libs.core.clock import Clock
from libs.core.errors import InvalidInput, Misconfigured, Refusal
from libs.core.ids import parse_id
from libs.core.migrations import Index
from libs.core.mongo import Document, Mongo, Session
from libs.core.pubsub import follow, tell
from libs.core.redis import Redis
from libs.core.tasks import ended

COLLECTION = "service_configs"
INDEXES = (Index(COLLECTION), *AUDIT_INDEXES)

PLATFORM: Final = "*"  # no tenant's id
_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*", re.ASCII)

log = structlog.get_logger(__name__)

_REFUSED = Counter("config_refused", "Overrides in the database that were invalid, and not used", ("name", "field"))
_CHANGES = Counter("config_changes", "Changes of configuration that came into force here", ("name",))


class ConfigModel(BaseModel):
    """A group of values that change together. Every field has a default. Instances are frozen; let fields be, too."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    config_name: ClassVar[str]

    def __init_subclass__(cls, *, name: str, **options: Any) -> None:
        """`name` identifies the model's document, such as `payment.limits`."""
        super().__init_subclass__(**options)
        if not _NAME.fullmatch(name):
            raise Misconfigured(f"{name!r} is not a name for a configuration, such as payment.limits")
        cls.config_name = name


Model = TypeVar("Model", bound=ConfigModel)
Listener = Callable[[str | None], None]


@dataclass(frozen=True, slots=True)
class Override:
    """What one scope, the platform or a tenant, sets otherwise; `version` counts how often it was set."""

    version: int
    values: dict[str, Any]


Refuse = Callable[[type[ConfigModel], str, InvalidInput], None]
_NOTHING: Final = Override(0, {})


class Config:
    """The configuration in force, one a process, open (`async with`) while it is used."""

    def __init__(
        self,
        mongo: Mongo,
        redis: Redis,
        models: Iterable[type[ConfigModel]],
        *,
        clock: Clock | None = None,
        poll_s: float = 30.0,
    ) -> None:
        """`Misconfigured` if two models share a name, or a field has no valid default."""
        self._mongo = mongo
        self._redis = redis
        self._audit = AuditLog(mongo.core, "config", clock=clock)
        self._documents = mongo.core[COLLECTION]
        self._channel = redis.key("config")
        self._poll_s = poll_s
        self._models: dict[str, type[ConfigModel]] = {}
        self._in_force: dict[tuple[type[ConfigModel], str], ConfigModel] = {}
        self._overrides: dict[tuple[type[ConfigModel], str], Override] = {}
        self._seen: dict[str, Document | None] = {}
        self._listeners: dict[type[ConfigModel], list[Listener]] = {}
        self._reloading = asyncio.Lock()
        for model in models:
            self._register(model)

    def _register(self, model: type[ConfigModel]) -> None:
        if model.config_name in self._models:
            raise Misconfigured(f"two configurations are named {model.config_name}")
        try:
            self._in_force[model, PLATFORM] = _build(model)
        except InvalidInput as error:
            raise Misconfigured(f"{model.config_name}.{error.field} has no valid default: {error.message}") from error
        self._models[model.config_name] = model

    async def __aenter__(self) -> Self:
        """Reads what is in force. `Misconfigured` if an override is invalid."""
        await self._reload(_refuse_to_start)
        self._following = asyncio.create_task(follow(self._redis, self._channel, self.reload, poll_s=self._poll_s))
        return self

    async def __aexit__(self, *_: object) -> None:
        await ended(self._following)

    def get(self, model: type[Model], tenant_id: str | None = None) -> Model:
        """What is in force now, for the tenant or for the platform. A lookup in memory: do not keep the result."""
        in_force = self._in_force.get((model, tenant_id or PLATFORM)) or self._in_force[model, PLATFORM]
        return cast(Model, in_force)

    def version(self, model: type[ConfigModel], tenant_id: str | None = None) -> int:
        """How often its override was set, as far as this process knows; 0 if never. `set` wants it back."""
        return self._overrides.get((model, tenant_id or PLATFORM), _NOTHING).version

    def on_change(self, model: type[ConfigModel], listener: Listener) -> None:
        """Calls `listener(tenant_id)`, None for the platform, after a new instance has come into force."""
        self._listeners.setdefault(model, []).append(listener)

    async def set(
        self,
        model: type[Model],
        changes: Mapping[str, Any],
        *,
        unset: Collection[str] = (),
        tenant_id: str | None = None,
        actor: str,
        reason: str,
        expected_version: int,
    ) -> Model:
        """Overrides the fields in `changes`, ends the overrides in `unset`, and returns what is in force from then on.

        All or nothing, with an audit row. `InvalidInput` names the field that the resulting model, or a tenant's that
        builds on it, would not hold; `Refusal` CONFIG_CONFLICT if somebody else was quicker than `expected_version`.
        """
        if not reason.strip():
            raise InvalidInput("a change of configuration needs a reason", field="reason")
        scope = PLATFORM if tenant_id is None else parse_id(tenant_id, "tenant_id")

        async def work(session: Session) -> Model:
            document = await self._documents.find_one({"_id": model.config_name}, session=session)
            overrides = _overrides(document)
            old = overrides.get(scope, _NOTHING)
            if old.version != expected_version:
                raise _conflict(model, old.version, expected_version)
            values = {name: value for name, value in {**old.values, **changes}.items() if name not in unset}
            new = overrides[scope] = Override(old.version + 1, _storable(values))
            built = _build_all(model, overrides, scope)
            await self._documents.update_one(
                {"_id": model.config_name}, {"$set": {f"overrides.{scope}": asdict(new)}}, upsert=True, session=session
            )
            await self._audit.append(
                session,
                actor=actor,
                action="config.set",
                resource=_resource(model),
                tenant_id=tenant_id,
                before=old.values,
                after=new.values,
                reason=reason,
            )
            return built

        built = await self._mongo.transaction(work)
        await tell(self._redis, self._channel)
        with suppress(PyMongoError):  # it is committed; whoever was told, this process too, goes on trying
            await self.reload()
        return built

    async def history(self, model: type[ConfigModel], *, after: int = 0, limit: int = 100) -> list[AuditRow]:
        """Who changed it, when, why, from what to what; oldest first, from the audit log's sequence `after` on."""
        return await self._audit.read(after=after, limit=limit, resource=_resource(model))

    async def reload(self) -> None:
        """Puts in force what is stored by now; what is invalid in it is logged, and what was in force stays."""
        await self._reload(self._keep_in_force)

    async def _reload(self, refuse: Refuse) -> None:
        async with self._reloading:  # so that what was read first does not come into force last
            documents = {row["_id"]: row async for row in self._documents.find({"_id": {"$in": list(self._models)}})}
            for name, model in self._models.items():
                document = documents.get(name)
                if document != self._seen.get(name):
                    self._apply(model, document, refuse)
                    self._seen[name] = document

    def _apply(self, model: type[ConfigModel], document: Document | None, refuse: Refuse) -> None:
        try:
            overrides = {PLATFORM: _NOTHING, **_overrides(document)}
        except InvalidInput as error:
            refuse(model, PLATFORM, error)
            return
        for scope in [PLATFORM, *(overrides.keys() - {PLATFORM})]:
            try:
                instance = _build(model, overrides[PLATFORM].values, overrides[scope].values)
            except InvalidInput as error:
                refuse(model, scope, error)
                overrides[scope] = self._overrides.get((model, scope), _NOTHING)
            else:
                self._overrides[model, scope] = overrides[scope]
                self._put_in_force(model, scope, instance)
        for gone in [known for known in self._overrides if known[0] is model and known[1] not in overrides]:
            del self._overrides[gone], self._in_force[gone]
            self._notify(*gone)

    def _put_in_force(self, model: type[ConfigModel], scope: str, instance: ConfigModel) -> None:
        if self._in_force.get((model, scope)) != instance:
            self._in_force[model, scope] = instance
            _CHANGES.labels(model.config_name).inc()
            self._notify(model, scope)

    def _notify(self, model: type[ConfigModel], scope: str) -> None:
        for listener in self._listeners.get(model, ()):
            try:
                listener(None if scope == PLATFORM else scope)
            except Exception:  # one listener's mistake must not keep a value from everyone else
                log.exception("a listener to a change of configuration failed", name=model.config_name)

    def _keep_in_force(self, model: type[ConfigModel], scope: str, error: InvalidInput) -> None:
        _REFUSED.labels(model.config_name, error.field).inc()
        log.error(
            "an override in the database is invalid, what was in force stays in force",
            name=model.config_name,
            scope=scope,
            field=error.field,
            error=error.message,
        )


def _refuse_to_start(model: type[ConfigModel], scope: str, error: InvalidInput) -> None:
    where = f"{COLLECTION}, _id {model.config_name}, scope {scope}"
    raise Misconfigured(f"the override in {where} is invalid: {error.field}: {error.message}")


def _overrides(document: Document | None) -> dict[str, Override]:
    """By scope. `InvalidInput` if somebody's hand left it without the shape that it must have."""
    try:
        stored = document["overrides"] if document else {}
        return {scope: Override(int(row["version"]), dict(row["values"])) for scope, row in stored.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput("must hold {scope: {version, values}}", field="overrides") from error


def _build(model: type[Model], *layers: Mapping[str, Any]) -> Model:
    """Defaults under `layers`, the last one on top; `InvalidInput` names the first field that the model refuses."""
    try:
        return model.model_validate_json(to_json({k: v for layer in layers for k, v in layer.items()}), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or model.config_name
        raise InvalidInput(first["msg"].removeprefix("Value error, "), field=field) from error
    except PydanticSerializationError as error:
        raise InvalidInput(str(error), field=model.config_name) from error


def _build_all(model: type[Model], overrides: Mapping[str, Override], changed: str) -> Model:
    """What a change of the scope `changed` puts in force there, if it and all that builds on it is valid."""
    base = overrides.get(PLATFORM, _NOTHING).values
    built = _build(model, base, overrides[changed].values)
    for scope in overrides.keys() - {PLATFORM} if changed == PLATFORM else ():
        try:
            _build(model, base, overrides[scope].values)
        except InvalidInput as error:
            raise InvalidInput(f"for tenant {scope}: {error.message}", field=error.field) from error
    return built


def _storable(values: Mapping[str, Any]) -> Document:
    """As JSON. `InvalidInput` names the field that JSON or BSON has no place for."""
    stored = {}
    for name, value in values.items():
        try:
            stored[name] = json.loads(to_json(value))
            bson.encode(stored)
        except (PydanticSerializationError, InvalidDocument, OverflowError) as error:
            raise InvalidInput(f"cannot be stored: {error}", field=name) from error
    return stored


def _conflict(model: type[ConfigModel], actual: int, expected: int) -> Refusal:
    return Refusal(
        "CONFIG_CONFLICT",
        f"{model.config_name} was changed by somebody else meanwhile: look at it again",
        rule="config.version",
        expected=expected,
        actual=actual,
    )


def _resource(model: type[ConfigModel]) -> str:
    return f"config:{model.config_name}"
