"""Users' requests: retry, skip, first and add.

A request is applied when it can be applied whole, in one decision, which becomes one record of the journal.
So it is applied once, wherever the master is killed.  Until then nothing of it is recorded, and the next
master finds its file again.

A trial that waits in a slot behind another one counts as running here, and as waiting to the user.  So it
is reclaimed first, and the request waits for the answer: either the trial is back, or it has begun.  Requests
are applied in the order in which they were made.

What is asked twice is done once: a retry names the attempt that it repeats, and a trial that is skipped, or
first, stays so.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

from mpisweep.records import FailureCause, RequestKind
from mpisweep.scheduling.core import Core, OpenRequest
from mpisweep.scheduling.decisions import ApplyRequest, Decision
from mpisweep.scheduling.events import RequestsMade
from mpisweep.scheduling.refusals import UNKNOWN, refusal
from mpisweep.scheduling.rules.assigning import BATCH_S
from mpisweep.scheduling.rules.learning import add_trials
from mpisweep.scheduling.rules.reclaiming import reclaim
from mpisweep.scheduling.trials import FAILED, RUNNING, SKIPPED, WAITING

__all__ = ["apply_requests", "on_requests_made"]


def on_requests_made(core: Core, event: RequestsMade) -> list[Decision]:
    """Note requests, to be applied in order."""
    core.asked.requests += [
        OpenRequest(request, event.widths.get(request.name, ()), event.repeats) for request in event.requests
    ]
    return []


def apply_requests(core: Core) -> list[Decision]:
    """Apply the requests whose trials have been found, in order."""
    decisions: list[Decision] = []
    while core.asked.requests:
        applied = _apply(core, core.asked.requests[0], decisions)
        if applied is None:
            break
        decisions.append(applied)
        del core.asked.requests[0]
    return decisions


def _apply(core: Core, one: OpenRequest, decisions: list[Decision]) -> ApplyRequest | None:
    """Apply a request; None while it must wait."""
    kind = one.request.kind
    if why := _why_not(core, kind):
        return ApplyRequest(one.request.name, [], [], why)
    match kind:
        case RequestKind.ADD:
            return _add(core, one)
        case RequestKind.RETRY:
            return _retry(core, one)
        case RequestKind.SKIP | RequestKind.FIRST:
            if not _are_found(core, one, decisions):
                _hold_back(core, one)
                return None
            core.waiting.put_back(list(core.asked.held_back))
            core.asked.held_back.clear()
            return _skip(core, one) if kind is RequestKind.SKIP else _put_first(core, one, decisions)
        case RequestKind.STOP:
            # It has a file of its own, which the master sees sooner.
            return ApplyRequest(one.request.name, [], [], "")


def _why_not(core: Core, kind: RequestKind) -> str:
    """Why a sweep takes no requests of this kind; empty if it does."""
    if core.supply is not None:
        return "the sweep is split between several runs"
    if kind is RequestKind.FIRST:
        return ""
    if core.search is not None:
        return "its search chooses trials from the results of those before"
    if kind is RequestKind.SKIP:
        return ""
    if core.proposals is not None:
        return "its search has learned from the trials that have ended, and proposes the others"
    return "a race compares the repeats that there are" if core.race is not None else ""


# ------------------------------------------------------------------------------------- retry and add


def _add(core: Core, one: OpenRequest) -> ApplyRequest:
    configurations, repeats = list(one.request.configurations), one.repeats
    if not configurations:
        return ApplyRequest(one.request.name, [], [], "")
    numbers = add_trials(core, configurations * repeats, one.widths * repeats)
    core.waiting.add(numbers)
    return ApplyRequest(one.request.name, numbers, [0] * len(numbers), "", configurations, repeats)


def _retry(core: Core, one: OpenRequest) -> ApplyRequest:
    states, attempts = core.trials.states, core.trials.attempts
    numbers: list[int] = []
    refused: dict[int, int] = {}
    for number, attempt in one.request.trials:
        if number >= core.total:
            refused[number] = UNKNOWN
        elif states[number] in (FAILED, SKIPPED):
            # Another attempt has failed since; nobody has asked to repeat that one.
            if attempts[number] == attempt:
                core.trials.move(number, WAITING)
                core.asked.retried[number] = attempt
                # A warm process has imported the code before it was mended.
                core.memory.fresh.add(number)
                core.losses.forgive(number)
                numbers.append(number)
        elif states[number] not in (WAITING, RUNNING):
            refused[number] = states[number]
    core.waiting.add(numbers)
    return _applied(core, one, numbers, refused)


# ------------------------------------------------------------------------------------- skip and first


def _are_found(core: Core, one: OpenRequest, decisions: list[Decision]) -> bool:
    """Whether none of the trials may come back from a slot in which it has not begun."""
    states = core.trials.states
    running = [
        number
        for number, _ in one.request.trials
        if number < core.total and states[number] == RUNNING and number not in core.teams
    ]
    if not running:
        return True
    slot_of = {n: slot for slot, held in chain(core.away.items(), core.slots.held.items()) for n in held}
    all_found = True
    for number in running:
        slot = slot_of[number]
        # Of a slot that is away only its worker knows; one that was asked may return it.
        if slot in core.away or (slot in one.reclaimed and slot in core.slots.asked):
            all_found = False
        elif slot not in one.reclaimed and next(iter(core.slots.held[slot])) != number:
            one.reclaimed.add(slot)
            decisions += reclaim(core, slot)
            all_found = False
    return all_found


def _hold_back(core: Core, one: OpenRequest) -> None:
    """Keep the trials that are back from being handed out while others may follow."""
    for number, _ in one.request.trials:
        if number < core.total and core.trials.states[number] == WAITING and core.waiting.discard(number):
            core.asked.held_back[number] = None


def _skip(core: Core, one: OpenRequest) -> ApplyRequest:
    numbers: list[int] = []
    refused: dict[int, int] = {}
    for number in dict.fromkeys(number for number, _ in one.request.trials):
        state = core.trials.states[number] if number < core.total else UNKNOWN
        if state == WAITING:
            if not core.memory.take(number):
                core.waiting.discard(number)
            core.memory.forget(number)
            core.losses.note_ended([number])
            core.trials.move(number, SKIPPED)
            if core.race is not None:
                core.race.note(number, SKIPPED, int(FailureCause.NONE), None)
            numbers.append(number)
        elif state != SKIPPED:
            refused[number] = state
    return _applied(core, one, numbers, refused)


def _put_first(core: Core, one: OpenRequest, decisions: list[Decision]) -> ApplyRequest:
    named = dict.fromkeys(number for number, _ in one.request.trials)
    states = {number: core.trials.states[number] if number < core.total else UNKNOWN for number in named}
    numbers = [number for number, state in states.items() if state == WAITING]
    core.run_first(numbers)
    # What waits in the slots would run before them; very short trials are not worth the messages.
    if numbers and (core.model.usual_s is None or core.model.usual_s > BATCH_S):
        for slot in [*core.slots.with_backlog, *chain(*core.slots.with_bound_backlog.values())]:
            decisions += reclaim(core, slot)
    refused = {number: state for number, state in states.items() if state != WAITING}
    return _applied(core, one, numbers, refused)


def _applied(core: Core, one: OpenRequest, numbers: list[int], refused: Mapping[int, int]) -> ApplyRequest:
    attempts = [core.trials.attempts[number] for number in numbers]
    return ApplyRequest(one.request.name, numbers, attempts, refusal(refused))
