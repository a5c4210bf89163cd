"""The runners heard of lately."""

from collections.abc import Callable, Sequence

from contracts.broker import RunnerStatus


class Runners:
    """Who is there, and since when there has been one that could work."""

    def __init__(self, silence_s: float, clock: Callable[[], float]) -> None:
        self._silence_s = silence_s
        self._clock = clock
        self._heard_at: dict[str, float] = {}
        self._statuses: dict[str, RunnerStatus] = {}
        self.last_ready_at = float("-inf")

    def hear(self, runner_id: str) -> None:
        """Any call of a runner is a sign of life."""
        self._heard_at[runner_id] = self._clock()

    def heartbeat(self, status: RunnerStatus) -> None:
        self.hear(status.runner_id)
        self._statuses[status.runner_id] = status
        if status.is_ready:
            self.last_ready_at = self._clock()

    def statuses(self) -> Sequence[RunnerStatus]:
        """Of those that are not silent, in the order of their first heartbeat."""
        return tuple(status for runner_id, status in self._statuses.items() if not self._is_silent(runner_id))

    def is_any_ready(self, *, besides: str | None = None) -> bool:
        return any(status.is_ready and status.runner_id != besides for status in self.statuses())

    def forget_silent(self) -> Sequence[str]:
        """Their ids. A runner that speaks again later is a new one."""
        silent = [runner_id for runner_id in self._heard_at if self._is_silent(runner_id)]
        for runner_id in silent:
            del self._heard_at[runner_id]
            self._statuses.pop(runner_id, None)
        return silent

    def _is_silent(self, runner_id: str) -> bool:
        return self._clock() - self._heard_at[runner_id] > self._silence_s
