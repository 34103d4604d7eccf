"""Auth's documents, and the indexes over them.

users           {_id: tenant:id, …}       who somebody is; what they sign in by is unique in a tenant
sessions        {_id: session id, …}      from a login to its end, kept a while longer for who looks back
refresh_tokens  {_id: SHA-256, …}         each good once; those that were used stay, so that a replay is seen
identities      {_id: id, …}              who a user is to an identity provider; one user for an issuer and subject
flows           {_id: SHA-256, …}         what is between two requests of one piece of work
signing_keys    {_id: kid, …}             private parts sealed
totp            {_id: tenant:user, …}     an authenticator app: its secret, sealed, and the last step taken
recovery_codes  {_id: tenant:user, …}     the hashes of those that are left
passkeys        {_id: SHA-256 of the credential's id, …}
api_keys        {_id: key id, …}          a service account's, by the hash of its secret
log_heads       {_id: log}                where a tenant's security log was when that was last published
devices         {_id: SHA-256, …}         where somebody signed in: one for each user of it, by the hash of its token
"""

from libs.core.audit import COLLECTION as AUDIT_LOG
from libs.core.migrations import Index

SESSIONS_KEPT_S = 90 * 24 * 3600


def _unique(field: str) -> Index:
    return Index("users", (("tenant_id", 1), (field, 1)), unique=True, partial={field: {"$gt": ""}})


INDEXES = (
    Index("users", (("tenant_id", 1), ("listed_under", 1), ("created_at", -1), ("_id", -1))),
    Index("users", (("tenant_id", 1), ("name_key", 1), ("_id", 1)), partial={"name_key": {"$gt": ""}}),
    _unique("email"),
    _unique("phone"),
    _unique("username"),
    # Those that have not ended: a user who signs in every minute has tens of thousands that have.
    Index("sessions", (("tenant_id", 1), ("user_id", 1), ("created_at", -1), ("_id", -1)), partial={"ended_at": None}),
    Index("sessions", (("expires_at", 1),), ttl_s=SESSIONS_KEPT_S),
    Index("refresh_tokens", (("expires_at", 1),), ttl_s=0),
    Index("identities", (("tenant_id", 1), ("issuer", 1), ("subject", 1)), unique=True),
    Index("identities", (("tenant_id", 1), ("user_id", 1), ("linked_at", 1))),
    Index("flows", (("expires_at", 1),), ttl_s=3600),
    Index("signing_keys", (("number", 1),), unique=True),
    Index("totp", (("sealed_with", 1),)),
    Index("recovery_codes"),
    Index("passkeys", (("tenant_id", 1), ("user_id", 1), ("created_at", 1))),
    Index("devices", (("tenant_id", 1), ("user_id", 1), ("last_seen_at", -1), ("_id", -1))),
    Index("devices", (("expires_at", 1),), ttl_s=0),
    Index("api_keys", (("tenant_id", 1), ("_id", -1))),
    Index("api_keys", (("tenant_id", 1), ("account_id", 1), ("_id", -1))),
    Index("log_heads"),
    # Of the security log: all of it, and by who did it, whom it was about, and what it was.
    Index(AUDIT_LOG, (("log", 1), ("at", -1), ("sequence", -1))),
    Index(AUDIT_LOG, (("log", 1), ("actor", 1), ("at", -1), ("sequence", -1))),
    Index(AUDIT_LOG, (("log", 1), ("on_behalf_of", 1), ("at", -1), ("sequence", -1))),
    Index(AUDIT_LOG, (("log", 1), ("action", 1), ("at", -1), ("sequence", -1))),
)
