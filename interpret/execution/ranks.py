"""The processes that work together on one command: torchrun starts them, and each has a rank."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from interpret.support.errors import InterpretError

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")
Part = TypeVar("Part")
State = Mapping[str, "Tensor"]

LONGEST_WAIT = timedelta(days=7)
"""How long a rank waits for the others, for instance while rank 0 writes pages. torchrun notices one that has died."""
LONGEST_START = timedelta(minutes=10)
"""How long a rank waits at the start for one that does not come."""
_joins = count()
"""How often this process has joined others."""


class LostRank(InterpretError):  # noqa: N818 - a rank, as LostConnection would be a connection
    """Another process of the run has ended, so that this one cannot go on."""


class Ranks:
    """One process alone: rank 0 of 1, which has nobody to wait for.

    Every rank calls the same functions with the same arguments. Only rank 0 writes files.

    >>> ranks = Ranks()
    >>> ranks.first, ranks.share(10), ranks.agreed("yes"), ranks.all(False)
    (True, slice(0, 10, None), 'yes', False)
    >>> ranks.mapped([1, 2, 3], lambda part: 2 * part)
    [2, 4, 6]
    """

    rank = 0
    size = 1
    local_rank = 0
    """The rank among those of one machine."""
    local_size = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return which of `count` things in a row are this rank's: a contiguous part, as large as the others' or so.

        >>> [_share(7, rank, 3) for rank in range(3)]
        [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
        """
        return _share(count, self.rank, self.size)

    def agreed(self, value: Value) -> Value:
        """Return rank 0's value."""
        return value

    def once(self, function: Callable[[], Value]) -> Value:
        """Call a function on rank 0, which is as if alone meanwhile, and return its result on every rank."""
        return function()

    def all(self, answer: bool) -> bool:
        """Return whether all ranks answer yes, once all have answered."""
        return answer

    def reduced(self, state: State, merge: Callable[[State, State], State]) -> State:
        """Merge the states of all ranks, neighbours first, and return the whole on rank 0, nothing on the others."""
        return state

    def arriving(self, states: Sequence[State]) -> Iterator[State]:
        """Send states to rank 0, where those of all other ranks are yielded one by one."""
        yield from ()

    def mapped(self, parts: Sequence[Part], function: Callable[[Part], Value]) -> list[Value]:
        """Apply a function to each part, each rank to its share, and return all results, in order, on every rank."""
        return self.concatenated(function(part) for part in parts[self.share(len(parts))])

    def concatenated(self, own: Iterable[Value]) -> list[Value]:
        """Return what each rank iterates over, one rank after the other, on every rank."""
        return list(own)

    def speaks_first(self) -> bool:
        """Return whether this rank is the first that ends the run with an error, which it has to print."""
        return True


class JoinedRanks(Ranks):
    """One of several processes, connected by `torch.distributed`."""

    def __init__(self) -> None:
        import torch
        import torch.distributed as dist

        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        gpus = torch.cuda.device_count() if torch.cuda.is_available() and dist.is_nccl_available() else 0
        # of several ranks on one GPU, which NCCL does not connect, all use gloo
        nccl = gpus >= self.local_size
        try:
            store, self.rank, self.size = next(dist.rendezvous("env://", timeout=LONGEST_START))
            # torchrun's store remains after a restart, a change of the ranks, and in a process that joins again
            start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            self._store = dist.PrefixStore(f"{start}/{self.size}/{next(_joins)}", store)
            nccl = _all_answer_yes(self._store, nccl, self.rank, self.size)
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if nccl else "gloo",
                store=dist.PrefixStore("ranks", self._store),
                rank=self.rank,
                world_size=self.size,
                timeout=LONGEST_WAIT,
            )
        except (RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise InterpretError(
                f"the {os.environ['WORLD_SIZE']} processes of this run cannot reach each other ({reason}): "
                "start them with torchrun"
            ) from None
        self._device = torch.device("cuda", self.local_rank) if nccl else torch.device("cpu")

    def agreed(self, value: Value) -> Value:
        import torch.distributed as dist

        held: list[Any] = [value if self.first else None]
        with _others_needed():
            dist.broadcast_object_list(held, src=0)
        return held[0]

    def once(self, function: Callable[[], Value]) -> Value:
        found: Any = None
        if self.first:
            with alone():
                found = function()
        return self.agreed(found)

    def all(self, answer: bool) -> bool:
        import torch
        import torch.distributed as dist

        with _others_needed():
            dist.all_reduce(votes := torch.tensor(int(answer)), dist.ReduceOp.MIN)
        return bool(votes)

    def reduced(self, state: State, merge: Callable[[State, State], State]) -> State:
        step = 1
        while step < self.size:
            if self.rank % (2 * step):
                self._send(state, self.rank - step)
                return {}
            if self.rank + step < self.size:
                state = merge(state, self._receive(self.rank + step))
            step *= 2
        return state

    def arriving(self, states: Sequence[State]) -> Iterator[State]:
        import torch

        if not self.first:
            self._send({"count": torch.tensor(len(states))}, 0)
            for state in states:
                self._send(state, 0)
            return
        for rank in range(1, self.size):
            for _ in range(int(self._receive(rank)["count"])):
                yield self._receive(rank)

    def concatenated(self, own: Iterable[Value]) -> list[Value]:
        import torch.distributed as dist

        values: list[Value] | InterpretError
        try:
            values = list(own)
        except InterpretError as error:
            values = error.with_traceback(None)
        found: list[Any] = [None] * self.size
        with _others_needed():
            dist.all_gather_object(found, values)
        for one in found:
            if isinstance(one, InterpretError):  # on every rank, as if it had come to all parts
                raise one
        return [value for one in found for value in one]

    def speaks_first(self) -> bool:
        try:
            return self._store.add("errors", 1) == 1
        except RuntimeError:  # the store has ended with the rank that holds it, which has printed why
            return False

    def _send(self, state: State, rank: int) -> None:
        import torch
        import torch.distributed as dist
        from safetensors.torch import save

        packed = save({name: value.contiguous() for name, value in state.items()})
        content = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
        with _others_needed():
            dist.send(torch.tensor(len(content)), rank)
            dist.send(content.to(self._device), rank)

    def _receive(self, rank: int) -> State:
        import torch
        import torch.distributed as dist
        from safetensors.torch import load

        with _others_needed():
            dist.recv(length := torch.tensor(0), rank)
            content = torch.empty(int(length), dtype=torch.uint8, device=self._device)
            dist.recv(content, rank)
        return load(content.cpu().numpy().tobytes())


def _share(count: int, rank: int, size: int) -> slice:
    return slice(count * rank // size, count * (rank + 1) // size)


def _all_answer_yes(store: Any, answer: bool, rank: int, size: int) -> bool:
    """Return whether all ranks answer yes, before they are connected otherwise."""
    store.set(f"answers/{rank}", "yes" if answer else "no")
    return all(store.get(f"answers/{other}") == b"yes" for other in range(size))


@contextmanager
def _others_needed() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise LostRank(
            f"another process of this run has ended ({reason}): start the same command again, which goes on from the "
            "last minute"
        ) from None


_current: Ranks = Ranks()


def ranks() -> Ranks:
    """Return the ranks of this process: those that the command has joined, or else this process alone."""
    return _current


@contextmanager
def alone() -> Iterator[None]:
    """Act as if this process were alone, in work that the other ranks take no part in."""
    global _current
    _current, before = Ranks(), _current
    try:
        yield
    finally:
        _current = before


def started_together() -> bool:
    """Return whether this process was started as one of several, as torchrun does."""
    return (
        int(os.environ.get("WORLD_SIZE", "1") or 1) > 1 and {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    )


def join_ranks() -> Ranks:
    """Connect this process with the others that were started with it, if there are any.

    Raises:
        InterpretError: the others cannot be reached.
    """
    global _current
    if started_together():
        _current = JoinedRanks()
    return _current


def leave_ranks() -> None:
    """End the connection with the other processes."""
    global _current
    if isinstance(_current, JoinedRanks):
        import torch.distributed as dist

        dist.destroy_process_group()
    _current = Ranks()
