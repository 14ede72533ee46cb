"""The ranks that have joined, with their hosts and devices, and the quarantined slots."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mpisweep.messages import Hello, Team
from mpisweep.records import Slot
from mpisweep.scheduling.teams import all_devices

__all__ = ["Roster"]

log = logging.getLogger(__name__)


class Roster:
    """The ranks that have joined and are not lost."""

    def __init__(self) -> None:
        #: Rank -> its Hello, in the order of joining.
        self._hellos: dict[int, Hello] = {}
        self._quarantines: dict[Slot, str] = {}
        #: Rank -> what the check of its device has found.
        self._findings: dict[int, str] = {}

    @property
    def ranks(self) -> list[int]:
        """All present ranks, in the order of joining."""
        return list(self._hellos)

    @property
    def findings(self) -> list[str]:
        """Description of each device that is far below its peers."""
        return list(self._findings.values())

    @property
    def quarantines(self) -> list[str]:
        """Description of each quarantined slot."""
        return list(self._quarantines.values())

    def join(self, rank: int, hello: Hello) -> None:
        """Add a rank, or update it after another Hello."""
        self._hellos[rank] = hello

    def hello(self, rank: int) -> Hello | None:
        """What a present rank has said about itself; None if it is not present."""
        return self._hellos.get(rank)

    def leave(self, rank: int) -> Hello | None:
        """Remove a rank; returns its Hello if it was present."""
        return self._hellos.pop(rank, None)

    def neighbour_of(self, hello: Hello) -> int | None:
        """A rank on the same node as a lost one; None if there is none."""
        return next((rank for rank, other in self._hellos.items() if other.host == hello.host), None)

    def quarantine(self, slot: Slot, why: str) -> None:
        """Note why a slot is quarantined, or its release if `why` is empty."""
        hello = self._hellos[slot.rank]
        if why:
            self._quarantines[slot] = f"{hello.device} on {hello.host} (rank {slot.rank}): {why}"
            log.warning("quarantined: %s", self._quarantines[slot])
        elif slot in self._quarantines:
            del self._quarantines[slot]
            back = "its trials fail elsewhere too, or no other device is left"
            log.warning("rank %d is released from quarantine: %s", slot.rank, back)

    def note_finding(self, rank: int, why: str, *, is_new: bool) -> None:
        """Note that a device is far below its peers, or is not any more if `why` is empty."""
        hello = self._hellos[rank]
        device = f"{hello.device} on {hello.host} (rank {rank})"
        if not why:
            self._findings.pop(rank, None)
            log.warning("device check: %s is as its peers are, now that there are more", device)
            return
        self._findings[rank] = f"{device}: {why}"
        if is_new:
            log.warning("device check: %s", self._findings[rank])

    def teams(self, slots: Sequence[Slot]) -> list[Team]:
        """Team of each rank of a trial of several ranks."""
        hosts = [self._hellos[slot.rank].host for slot in slots]
        nodes = list(dict.fromkeys(hosts))
        teams: list[Team] = []
        for rank, host in enumerate(hosts):
            mates = [slot for slot, other in zip(slots, hosts, strict=True) if other == host]
            devices = [self._hellos[slot.rank].environment[slot.place] for slot in mates]
            teams.append(
                Team(
                    rank, len(slots), hosts[:rank].count(host), len(mates), nodes.index(host), len(nodes),
                    all_devices(devices),
                )
            )  # fmt: skip
        return teams
