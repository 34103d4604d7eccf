"""What payment does on a schedule."""

from collections.abc import Iterable
from functools import partial

from libs.core.app import Platform
from libs.core.jobs import Job
from services.payment.commands import Payment
from services.payment.commands.holds import release_overdue
from services.payment.heads import HeadSigner
from services.payment.settings import PaymentConfig
from services.payment.verify import Budget
from services.payment.verify.divergence import Diverged

RELEASE_EVERY_S = 10.0
SIGN_EVERY_S = 60.0
VERIFY_EVERY_S = 60.0


def of_payment(platform: Platform, payment: Payment) -> Iterable[Job]:
    signer = HeadSigner(platform.mongo, platform.outbox, platform.clock, payment.keys)

    async def sign() -> None:
        try:
            await signer.sign()
        except Diverged as diverged:
            await payment.watch.alarm(diverged.divergence)

    async def verify() -> None:
        config = platform.config.get(PaymentConfig)
        await payment.watch.go_on(Budget(config.verify_transfers, config.verify_cpu_s))

    return [
        Job("release overdue holds", RELEASE_EVERY_S, partial(release_overdue, payment)),
        Job("sign journal heads", SIGN_EVERY_S, sign),
        Job("verify ledger", VERIFY_EVERY_S, verify),
    ]
