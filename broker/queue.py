"""The jobs that wait, in the order in which they are taken."""

from collections import OrderedDict, deque
from collections.abc import Iterator

from broker.log import ResponseLog


class FairQueue:
    """Owners take turns; the jobs of one owner go in the order in which they came.

    What was started before goes first of all: somebody has read the beginning of it.
    """

    def __init__(self) -> None:
        self._front: deque[ResponseLog] = deque()
        self._by_owner: OrderedDict[str, deque[ResponseLog]] = OrderedDict()
        self._num = 0
        self.num_bytes = 0

    def __len__(self) -> int:
        return self._num

    def __iter__(self) -> Iterator[ResponseLog]:
        """Over a copy, not in the order of taking."""
        return iter([*self._front, *(log for logs in self._by_owner.values() for log in logs)])

    def push(self, log: ResponseLog, *, is_first: bool = False) -> None:
        if is_first:
            self._front.appendleft(log)
        else:
            self._by_owner.setdefault(log.job.owner, deque()).append(log)
        self._count(log, 1)

    def peek(self) -> ResponseLog:
        """Raises ``LookupError`` if nothing waits."""
        return self._front[0] if self._front else self._by_owner[next(iter(self._by_owner), "")][0]

    def pop(self) -> ResponseLog:
        """Raises ``LookupError`` if nothing waits."""
        if self._front:
            log = self._front.popleft()
        else:
            owner = next(iter(self._by_owner), "")
            log = self._by_owner[owner].popleft()
            self._by_owner.move_to_end(owner)  # all others have their turn first
            self._forget_if_empty(owner)
        self._count(log, -1)
        return log

    def remove(self, log: ResponseLog) -> None:
        """Raises ``ValueError`` if it does not wait."""
        if log in self._front:
            self._front.remove(log)
        else:
            self._by_owner.get(log.job.owner, deque()).remove(log)
            self._forget_if_empty(log.job.owner)
        self._count(log, -1)

    def has_any_of(self, owner: str) -> bool:
        return owner in self._by_owner or any(log.job.owner == owner for log in self._front)

    def num_ahead_of(self, owner: str) -> int:
        """How many jobs are taken before the next one of this owner, if no more come."""
        num_own = len(self._by_owner.get(owner, ()))
        others = (len(logs) for name, logs in self._by_owner.items() if name != owner)
        return len(self._front) + num_own + sum(min(num, num_own + 1) for num in others)

    def _forget_if_empty(self, owner: str) -> None:
        if not self._by_owner[owner]:
            del self._by_owner[owner]

    def _count(self, log: ResponseLog, sign: int) -> None:
        self._num += sign
        self.num_bytes += sign * log.job_bytes
