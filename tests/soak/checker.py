"""Holds what clients were told against what is in the database at the end. Plain values in, sentences out.

The ledger's own lines give each wallet one history: its state after position 0, 1, 2 … Each thing that a client saw
must be one of these states, and one that was possible at that moment: not older than what had been acknowledged when
it asked, not newer than what had been asked for when it was answered.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

from tests.soak.client import REHEARSAL, REUSE, TROUBLE
from tests.soak.history import NEVER, Call, Read
from tests.soak.operations import (
    OPERATIONS,
    TRANSFER_LIMIT,
    Asked,
    Known,
    Move,
    expiry_id,
    expiry_moves,
)

ANY_VERDICT = set().union(*(operation.refusals for operation in OPERATIONS.values()))
# Real, bonus, locked.
State = tuple[int, ...]
BUCKETS = ("real", "bonus", "locked")


@dataclass(frozen=True, slots=True)
class Line:
    """A transaction: a line of `wallet`, which is a wallet, or one of the stripes of a system wallet `wallet_id`."""

    id: str
    wallet: str
    wallet_id: str
    bucket: str
    direction: str
    amount: int
    currency: str
    balance_after: int
    sequence: int
    position: int
    transfer_id: str
    at_ms: int

    @property
    def change(self) -> int:
        return self.amount if self.direction == "credit" else -self.amount


@dataclass(frozen=True, slots=True)
class Moved:
    """A transfer. `operation_id` is the id that its client chose for the whole of what it is a part of."""

    id: str
    operation_id: str
    kind: str
    amount: int
    currency: str
    owners: frozenset[str] = frozenset()
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Ledger:
    """All that is stored at the end. `balances` are the wallets' documents, by wallet and by bucket; `guarded` those

    that may not go below zero; `told` how often another service counted each transfer's event; `limited` is the wallet
    of the owner with a limit; `diverged` is what the ledger's own verification found.
    """

    transfers: Sequence[Moved]
    lines: Sequence[Line]
    balances: Mapping[str, Mapping[str, int]]
    guarded: frozenset[str]
    told: Mapping[str, int] = field(default_factory=dict)
    limited: str = ""
    diverged: str = ""


@dataclass
class Evidence:
    calls: Sequence[Call]
    reads: Sequence[Read]
    ledger: Ledger

    def __post_init__(self) -> None:
        self.reads = [read for read in self.reads if not read.trouble]
        self.by_id: dict[str, list[Call]] = defaultdict(list)
        self.asked: dict[str, tuple[str, Asked]] = {}
        for call in self.calls:
            if call.op in OPERATIONS:
                self.asked.setdefault(call.id, (call.op, call.asked))
                if not OPERATIONS[call.op].moves_nothing:
                    self.by_id[call.id].append(call)
        self.expiries = {expiry_id(i): i for i, (name, _) in self.asked.items() if name == "hold"}
        self._index_lines()
        self.known = Known(self.asked, frozenset(self.lines_of))

    def _index_lines(self) -> None:
        self.operation_of = {transfer.id: transfer.operation_id for transfer in self.ledger.transfers}
        self.lines_of: dict[str, list[Line]] = defaultdict(list)  # by operation
        for line in self.ledger.lines:
            self.lines_of[self.operation_of.get(line.transfer_id, line.transfer_id)].append(line)
        by_wallet: dict[str, list[Line]] = defaultdict(list)
        for line in sorted(self.ledger.lines, key=lambda line: line.position):
            by_wallet[line.wallet].append(line)
        self.wallets = {key: Track(lines, self) for key, lines in by_wallet.items()}
        self.players = {track.lines[0].wallet_id: track for track in self.wallets.values() if track.guarded}

    def applied(self, *names: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The operations of these names that are in the ledger, and what each was asked with."""
        for operation_id, (name, asked) in self.asked.items():
            if name in names and operation_id in self.lines_of:
                given = asked["input"]
                yield (
                    operation_id,
                    next(g for g in given if g["id"] == operation_id) if isinstance(given, list) else given,
                )

    def asked_at(self, line: Line) -> int:
        """When anybody first asked for what wrote it. What nobody asked for, another check finds."""
        return min((call.invoked for call in self._calls(line)), default=0)

    def acknowledged_at(self, line: Line) -> int:
        return min((call.answered for call in self._calls(line) if call.outcome == "ok"), default=NEVER)

    def _calls(self, line: Line) -> Sequence[Call]:
        return self.by_id.get(self.operation_of.get(line.transfer_id, line.transfer_id), ())


class Track:
    """One wallet's, or stripe's, history as the ledger tells it in the end."""

    def __init__(self, lines: list[Line], evidence: Evidence) -> None:
        self.lines = lines
        self.guarded = lines[0].wallet in evidence.ledger.guarded
        self.asked = [evidence.asked_at(line) for line in lines]
        self.acknowledged = [evidence.acknowledged_at(line) for line in lines]

    @cached_property
    def states(self) -> list[State]:
        """Before any line, and after each."""
        held = dict.fromkeys(BUCKETS, 0)
        states: list[State] = [tuple(held.values())]
        for line in self.lines:
            held[line.bucket] += line.change
            states.append(tuple(held.values()))
        return states

    @cached_property
    def _asked_so_far(self) -> list[int]:
        return list(accumulate(self.asked, max))

    @cached_property
    def _acknowledgements(self) -> tuple[list[int], list[int]]:
        """Times, and up to which position the wallet must be at least, from each of these times on."""
        ordered = sorted((at, position) for position, at in enumerate(self.acknowledged, start=1) if at != NEVER)
        return [at for at, _ in ordered], list(accumulate((position for _, position in ordered), max))

    def oldest_for(self, asked_at: int) -> int:
        times, positions = self._acknowledgements
        known = bisect_left(times, asked_at)
        return positions[known - 1] if known else 0

    def newest_for(self, answered_at: int) -> int:
        return bisect_left(self._asked_so_far, answered_at)


def violations(evidence: Evidence) -> list[str]:
    """Empty, if all that was promised was kept."""
    return [f"{check.__name__}: {found}" for check in CHECKS for found in check(evidence)]


def every_acknowledged_operation_is_there_once(evidence: Evidence) -> Iterator[str]:
    copies = Counter(transfer.id for transfer in evidence.ledger.transfers)
    for transfer_id, number in copies.items():
        if number > 1:
            yield f"transfer {transfer_id} is stored {number} times"
    for operation_id, calls in evidence.by_id.items():
        if any(call.outcome == "ok" for call in calls) and operation_id not in evidence.lines_of:
            yield f"{operation_id} was acknowledged and is not in the ledger"


def only_what_was_asked_for_is_there(evidence: Evidence) -> Iterator[str]:
    for operation_id, lines in evidence.lines_of.items():
        calls = evidence.by_id.get(operation_id)
        if operation_id in evidence.expiries:
            yield from _early(evidence.asked[evidence.expiries[operation_id]][1]["input"], lines)
        elif not calls:
            yield f"nobody asked for {operation_id}, which has {len(lines)} lines"
        elif all(call.outcome in ("refused", "fail") for call in calls):
            told = sorted({str(call.answer.get("code")) for call in calls})
            yield f"{operation_id} was applied, and its clients were only told {told}"


def each_operation_moves_what_it_says(evidence: Evidence) -> Iterator[str]:
    for operation_id, lines in evidence.lines_of.items():
        if operation_id in evidence.expiries:
            expected = _sums(expiry_moves(evidence.expiries[operation_id], evidence.known))
        elif operation_id in evidence.by_id:
            name, asked = evidence.asked[operation_id]
            expected = _sums(OPERATIONS[name].moves(asked, evidence.known)[operation_id])
        else:
            continue
        found = _sums([Move(line.wallet_id, line.bucket, line.change) for line in lines])
        if found != expected:
            yield f"{operation_id} moved {found}, and was to move {expected}"


def each_id_has_one_outcome(evidence: Evidence) -> Iterator[str]:
    for operation_id, calls in evidence.by_id.items():
        accepted = [call for call in calls if call.outcome == "ok"]
        if any(_told(call) != _told(accepted[0]) for call in accepted):
            yield f"{operation_id} was answered in two ways: {[call.answer for call in accepted]}"
        first = min((call.answered for call in accepted), default=NEVER)
        # A refusal does not consume an id, so being accepted after it is right; being refused after that is not.
        for call in calls:
            if call.outcome == "refused" and call.invoked > first:
                yield f"{operation_id} was accepted and later refused: {call.answer}"


def every_operation_got_an_answer(evidence: Evidence) -> Iterator[str]:
    for operation_id, calls in evidence.by_id.items():
        if all(call.outcome in ("unknown", "fail") for call in calls):
            yield f"{operation_id} never got an answer: {[call.answer.get('code') for call in calls][-5:]}"


def no_answer_is_a_surprise(evidence: Evidence) -> Iterator[str]:
    for call in evidence.calls:
        code = call.answer.get("code")
        if call.outcome == "ok":
            continue
        if call.outcome in ("fail", "unknown"):
            expected = TROUBLE
        elif call.op in OPERATIONS:
            expected = set(OPERATIONS[call.op].refusals)
        else:
            expected = {"IDEMPOTENCY_MISMATCH"} if call.op == REUSE else ANY_VERDICT
        if code not in expected:
            yield f"{call.id} ({call.op}) was told {call.answer}"


def an_id_is_not_used_twice(evidence: Evidence) -> Iterator[str]:
    for call in evidence.calls:
        if call.op == REUSE and call.outcome == "ok":
            yield f"{call.id} was accepted again, for something else: {call.asked}"


def a_rehearsal_moves_nothing(evidence: Evidence) -> Iterator[str]:
    for call in evidence.calls:
        if call.op == REHEARSAL and call.id in evidence.lines_of:
            yield f"{call.id} was a dry run, and is in the ledger"


def sets_stand_or_fall_together(evidence: Evidence) -> Iterator[str]:
    for call in evidence.calls:
        if call.op == "transfers, all or none":
            ids = OPERATIONS[call.op].ids(call.asked)
            applied = [operation_id for operation_id in ids if operation_id in evidence.lines_of]
            if applied and len(applied) < len(ids) and call.id == ids[0]:
                yield f"of the set {ids} only {applied} was applied"


def answers_show_what_is_stored(evidence: Evidence) -> Iterator[str]:
    for operation_id, calls in evidence.by_id.items():
        stored = {_shown(line) for line in evidence.lines_of.get(operation_id, ())}
        for call in calls:
            told = {_seen(line) for line in call.answer.get("transactions", ())} if call.outcome == "ok" else set()
            if not told <= stored:
                yield f"{operation_id} was answered with {told - stored}, and stored is {stored}"


def a_refusal_for_want_of_funds_is_true(evidence: Evidence) -> Iterator[str]:
    """What it says is available was there, at some moment between the question and the answer."""
    for call in evidence.calls:
        details = call.answer.get("details", {})
        if call.answer.get("code") != "INSUFFICIENT_FUNDS" or call.op not in OPERATIONS:
            continue
        if OPERATIONS[call.op].in_steps:
            continue
        if int(details["availableMinor"]) >= int(details["requestedMinor"]):
            yield f"{call.id} was refused for want of funds, and there were enough: {details}"
        track, bucket = evidence.players.get(details["walletId"]), BUCKETS.index(details.get("bucket", "real"))
        window: list[State] = [(0, 0, 0)]
        if track:
            window = track.states[track.oldest_for(call.invoked) : track.newest_for(call.answered) + 1]
        if all(state[bucket] != int(details["availableMinor"]) for state in window):
            yield f"{call.id} was refused on a balance that {details['walletId']} did not have then: {details}"


def a_hold_is_spent_once(evidence: Evidence) -> Iterator[str]:
    left = {hold_id: int(given["amount"]) for hold_id, given in evidence.applied("hold")}
    ends = [(given["holdId"], i) for i, given in evidence.applied("capture", "void")]
    ends += [(hold_id, i) for i, hold_id in evidence.expiries.items() if i in evidence.lines_of]
    for hold_id, operation_id in ends:
        if hold_id not in left:
            yield f"{operation_id} is of the hold {hold_id}, which does not exist"
        else:
            left[hold_id] += sum(line.change for line in evidence.lines_of[operation_id] if line.bucket == "locked")
    for hold_id, rest in left.items():
        if rest < 0:
            yield f"{-rest} more than was held left the hold {hold_id}"


def reversals_give_back_no_more_than_there_was(evidence: Evidence) -> Iterator[str]:
    sums: Counter[str] = Counter()
    for _, given in evidence.applied("reversal"):
        original = evidence.known.input(given["transferId"])
        sums[given["transferId"]] += int(given.get("amount", original["amount"]))
    for transfer_id, total in sums.items():
        if total > int(evidence.known.input(transfer_id)["amount"]):
            yield f"{total} of {transfer_id} was given back, which is more than it was"


def a_limit_holds(evidence: Evidence) -> Iterator[str]:
    """Of what the limited wallet's owner paid to others, in all; what was given back may be paid again."""
    paid = 0
    for _, given in evidence.applied("transfer", "transfers", "transfers, all or none"):
        paid += int(given["amount"]) if given["sourceWalletId"] == evidence.ledger.limited else 0
    for _, given in evidence.applied("reversal"):
        original = evidence.known.input(given["transferId"])
        if original.get("sourceWalletId") == evidence.ledger.limited:
            paid -= int(given.get("amount", original["amount"]))
    if paid > TRANSFER_LIMIT:
        yield f"{evidence.ledger.limited} paid {paid}, and may pay {TRANSFER_LIMIT}"


def each_transfer_is_a_debit_and_a_credit(evidence: Evidence) -> Iterator[str]:
    lines: dict[str, list[Line]] = defaultdict(list)
    for line in evidence.ledger.lines:
        lines[line.transfer_id].append(line)
    for transfer in evidence.ledger.transfers:
        found = sorted((line.direction, line.amount, line.currency) for line in lines.pop(transfer.id, ()))
        expected = [(side, transfer.amount, transfer.currency) for side in ("credit", "debit")]
        if found != expected:
            yield f"transfer {transfer.id} has the lines {found} instead of {expected}"
    for transfer_id in lines:
        yield f"lines of a transfer that does not exist: {transfer_id}"


def lines_add_up(evidence: Evidence) -> Iterator[str]:
    """Without a gap, each after the one before, and no player's below zero."""
    for key, track in evidence.wallets.items():
        held: Counter[str] = Counter()
        sequences: Counter[str] = Counter()
        for position, line in enumerate(track.lines, start=1):
            held[line.bucket] += line.change
            sequences[line.bucket] += 1
            if (line.position, line.sequence) != (position, sequences[line.bucket]):
                yield f"{key} has a line {line.position} ({line.bucket} {line.sequence}) in place {position}"
            if line.balance_after != held[line.bucket]:
                yield f"{key} line {position} says {line.balance_after} of {line.bucket}, and it is {held[line.bucket]}"
            if track.guarded and held[line.bucket] < 0:
                yield f"{key} went below zero with line {position}: {line.bucket} {held[line.bucket]}"
        stored = {bucket: amount for bucket, amount in evidence.ledger.balances.get(key, {}).items() if amount}
        if stored != {bucket: amount for bucket, amount in held.items() if amount}:
            yield f"{key} holds {stored}, and its lines add up to {dict(held)}"
    for key, balances in evidence.ledger.balances.items():
        if key not in evidence.wallets and any(balances.values()):
            yield f"{key} holds {dict(balances)} without a line"


def money_is_neither_made_nor_lost(evidence: Evidence) -> Iterator[str]:
    sums: Counter[str] = Counter()
    for line in evidence.ledger.lines:
        sums[line.currency] += line.change
    for currency, total in sums.items():
        if total:
            yield f"all of {currency} sums to {total}"
    stored = sum(sum(balances.values()) for balances in evidence.ledger.balances.values())
    if stored:
        yield f"all wallets sum to {stored}"


def a_wallets_time_does_not_run_backwards(evidence: Evidence) -> Iterator[str]:
    for key, track in evidence.wallets.items():
        for earlier, later in pairwise(track.lines):
            if later.at_ms < earlier.at_ms:
                yield f"{key} line {later.position} is dated {earlier.at_ms - later.at_ms} ms before the line before it"


def what_was_acknowledged_first_is_first(evidence: Evidence) -> Iterator[str]:
    """An operation that was asked for after another was acknowledged has the later line of a wallet that they share."""
    for key, track in evidence.wallets.items():
        later_acknowledged = NEVER
        for line, asked, acknowledged in zip(
            reversed(track.lines), reversed(track.asked), reversed(track.acknowledged), strict=True
        ):
            if later_acknowledged < asked:
                yield f"{key} line {line.position} ({line.transfer_id}) stands before what was acknowledged earlier"
            later_acknowledged = min(later_acknowledged, acknowledged)


def reads_show_balances_that_were_possible(evidence: Evidence) -> Iterator[str]:
    """And one client never sees a wallet's earlier state after a later one."""
    reached: Counter[tuple[str, str]] = Counter()
    for read in sorted(evidence.reads, key=lambda read: read.answered):
        for wallet_id, state in _balances_in(read):
            track = evidence.players.get(wallet_id)
            states = track.states if track else [(0, 0, 0)]
            oldest, newest = (track.oldest_for(read.invoked), track.newest_for(read.answered)) if track else (0, 0)
            oldest = max(oldest, reached[read.client, wallet_id])
            positions = [p for p in range(oldest, newest + 1) if states[p] == state]
            if positions:
                reached[read.client, wallet_id] = positions[0]
            else:
                yield (
                    f"{read.call} ({read.op}) saw {wallet_id} with {state}, and between lines {oldest} and {newest} "
                    f"it had {states[oldest : newest + 1][:10]}"
                )


def reads_show_lines_that_are_there(evidence: Evidence) -> Iterator[str]:
    """`transactions` shows a wallet's newest lines, none left out."""
    for read in evidence.reads:
        if read.op != "transactions":
            continue
        nodes = [edge["node"] for edge in read.seen["edges"]]
        track = evidence.players.get(read.asked["id"])
        positions = [int(node["id"].rpartition(":")[2]) for node in nodes]
        newest = positions[0] if positions else 0
        if positions != list(range(newest, newest - len(positions), -1)):
            yield f"{read.call} saw lines {positions} of {read.asked['id']}"
        if track is None:
            if nodes:
                yield f"{read.call} saw lines of {read.asked['id']}, which has none"
            continue
        for position, node in zip(positions, nodes, strict=True):
            stored = track.lines[position - 1] if position <= len(track.lines) else None
            if stored is None or _seen({**node, "walletId": stored.wallet_id}) != _shown(stored):
                yield f"{read.call} saw a line that is not there: {node}"
        if not track.oldest_for(read.invoked) <= newest <= track.newest_for(read.answered):
            yield f"{read.call} saw {read.asked['id']} up to line {newest}, which was not possible then"


def reads_show_transfers_that_are_there(evidence: Evidence) -> Iterator[str]:
    transfers = {transfer.id: transfer for transfer in evidence.ledger.transfers}
    for read in evidence.reads:
        if read.op != "transferHistory":
            continue
        nodes = [edge["node"] for edge in read.seen["edges"]]
        for node in nodes:
            stored = transfers.get(node["id"])
            if stored is None or (stored.kind, stored.amount) != (node["kind"].lower(), int(node["amount"])):
                yield f"{read.call} saw a transfer that is not there: {node}"
        if len({node["id"] for node in nodes}) < len(nodes):
            yield f"{read.call} saw a transfer twice: {[node['id'] for node in nodes]}"


def what_was_said_of_the_past_stays_true(evidence: Evidence) -> Iterator[str]:
    """`balanceAt` never changes, whatever is committed afterwards and by whose clock."""
    for read in evidence.reads:
        if read.op != "balanceAt":
            continue
        track, at_ms = evidence.players.get(read.asked["id"]), _ms(read.asked["at"])
        lines = bisect_right([line.at_ms for line in track.lines], at_ms) if track else 0
        state = track.states[lines] if track else (0, 0, 0)
        seen = tuple(int(read.seen[bucket]) for bucket in BUCKETS)
        if seen != state:
            yield f"{read.call} was told {seen} of {read.asked}, and it is {state} in the end"


def lists_by_time_leave_nothing_out(evidence: Evidence) -> Iterator[str]:
    """Between the newest and the oldest transfer that `transferHistory` showed, nothing came to light later."""
    newest_first = sorted(evidence.ledger.transfers, key=lambda transfer: (transfer.at_ms, transfer.id), reverse=True)
    of_owner: dict[str, list[str]] = defaultdict(list)
    for transfer in newest_first:
        for owner in transfer.owners:
            of_owner[owner].append(transfer.id)
    for read in evidence.reads:
        shown = [edge["node"]["id"] for edge in read.seen["edges"]] if read.op == "transferHistory" else []
        whole = of_owner[read.asked["owner"]] if shown else []
        first = whole.index(shown[0]) if shown and shown[0] in whole else 0
        if shown != whole[first : first + len(shown)]:
            yield f"{read.call} was shown {shown}, and it is {whole[first : first + len(shown)]} in the end"


def every_event_has_its_effect_once(evidence: Evidence) -> Iterator[str]:
    there = {transfer.id for transfer in evidence.ledger.transfers}
    for transfer_id, times in evidence.ledger.told.items():
        if transfer_id not in there:
            yield f"an event told of {transfer_id}, which does not exist"
        elif times != 1:
            yield f"the event of {transfer_id} had its effect {times} times"
    untold = there - evidence.ledger.told.keys()
    if untold:
        yield f"{len(untold)} transfers were never told of, {min(untold)} for one"


def the_ledger_verifies(evidence: Evidence) -> Iterator[str]:
    if evidence.ledger.diverged:
        yield evidence.ledger.diverged


CHECKS: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    every_acknowledged_operation_is_there_once,
    only_what_was_asked_for_is_there,
    each_operation_moves_what_it_says,
    each_id_has_one_outcome,
    every_operation_got_an_answer,
    no_answer_is_a_surprise,
    an_id_is_not_used_twice,
    a_rehearsal_moves_nothing,
    sets_stand_or_fall_together,
    answers_show_what_is_stored,
    a_refusal_for_want_of_funds_is_true,
    a_hold_is_spent_once,
    reversals_give_back_no_more_than_there_was,
    a_limit_holds,
    each_transfer_is_a_debit_and_a_credit,
    lines_add_up,
    money_is_neither_made_nor_lost,
    a_wallets_time_does_not_run_backwards,
    what_was_acknowledged_first_is_first,
    reads_show_balances_that_were_possible,
    reads_show_lines_that_are_there,
    reads_show_transfers_that_are_there,
    what_was_said_of_the_past_stays_true,
    lists_by_time_leave_nothing_out,
    every_event_has_its_effect_once,
    the_ledger_verifies,
)


def _early(held: Mapping[str, Any], lines: Sequence[Line]) -> Iterator[str]:
    if "expiresAt" not in held or lines[0].at_ms < _ms(held["expiresAt"]):
        yield f"the hold {held['id']} expired before its time: {held}"


def _ms(instant: str) -> int:
    return round(datetime.fromisoformat(instant).timestamp() * 1000)


def _sums(moves: Sequence[Move]) -> dict[tuple[str, str], int]:
    sums: Counter[tuple[str, str]] = Counter()
    for move in moves:
        sums[move.wallet_id, move.bucket] += move.change
    return {place: change for place, change in sums.items() if change}


def _shown(line: Line) -> tuple[Any, ...]:
    return line.wallet_id, line.bucket, line.direction, line.amount, line.balance_after, line.sequence


def _seen(node: Mapping[str, Any]) -> tuple[Any, ...]:
    """The same of a line in an answer."""
    bucket, direction = node["bucket"].lower(), node["direction"].lower()
    return node["walletId"], bucket, direction, int(node["amount"]), int(node["balanceAfter"]), int(node["sequence"])


def _told(call: Call) -> set[tuple[Any, ...]]:
    return {_seen(line) for line in call.answer.get("transactions", ())}


def _balances_in(read: Read) -> Iterator[tuple[str, State]]:
    seen = read.seen
    if read.op == "wallet" and seen:
        wallets = [seen]
    elif read.op == "wallets":
        wallets = [edge["node"] for edge in seen["edges"]]
    elif read.op == "userBalances":
        wallets = [wallet for balance in seen for wallet in balance["wallets"]]
    else:
        wallets = []
    for wallet in wallets:
        yield wallet["id"], tuple(int(wallet["balance"][bucket]) for bucket in BUCKETS)
