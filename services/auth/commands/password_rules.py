"""Which passwords may be chosen here: by this user, at this tenant."""

from services.auth.commands.auth import Auth


async def check_password(auth: Auth, tenant_id: str, password: str, *personal: str) -> None:
    """`Refusal` WEAK_PASSWORD. `personal`: what names the user; what names the house, the tenant and its words, is
    known here."""
    tenant = await auth.platform.tenants.get(tenant_id)
    words = (tenant.id, tenant.name, *auth.config(tenant_id).password_words)
    await auth.rules.check(password, personal=[*personal, *words])
