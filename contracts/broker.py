"""The broker: the one thing between gateways and runners.

Two implementations pass one contract suite (``tests/broker/contract.py``): in-process, and Redis. The broker numbers
the events of a response, so a log is gapless by construction, whoever writes to it.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from msgspec import Struct

from contracts.events import Event
from contracts.jobs import Idempotency, ImageRef, Job, Lease, RateLimit, StoredImage

SAY_AGAIN_S = 5.0  # how often a reader says anew what is read at it


class RunnerStatus(Struct, frozen=True, kw_only=True):
    """What a runner says of itself about once a second; it is forgotten when it has been silent for a few.

    latent_ablation: what it feeds back in place of latents, ``none`` if it serves the model as it is.
    """

    runner_id: str
    model: str
    is_ready: bool
    num_running: int
    max_num_seqs: int
    latent_size: int
    latent_exit: str
    latent_ablation: str = "none"
    engine: str
    detail: str = ""


class Broker(Protocol):
    """Gateway side: images, ``check_room``, ``spend``, ``submit``, ``job``, ``token_ids``, ``events``, ``follow``,
    ``cancel``, ``note_reading``, ``cancel_unread``, ``runners``.

    Runner side: ``take``, ``publish``, ``give_back``, ``cancellations``, ``get_image``, ``heartbeat``.

    A call that cannot reach what the broker lives on, after retries within a few seconds, raises
    ``BrokerUnavailable``; ``take`` and ``cancellations`` go on trying instead.
    """

    async def put_image(self, image: StoredImage, *, owner: str = "") -> None:
        """Keep the file under its content hash for a while, and for as long as an open job refers to it.

        Each owner who puts it may get it. Raises ``Overloaded``: images of open jobs leave no place for it.
        """
        ...

    async def get_image(self, image_id: str, *, owner: str | None = None) -> StoredImage:
        """Raises ``ImageNotFound``, also if this owner never put it. ``None``, for runners, sees all."""
        ...

    async def image_ref(self, image_id: str, *, owner: str | None = None) -> ImageRef:
        """Of a stored image, without its bytes; this is a use of it. Raises as ``get_image`` does."""
        ...

    async def check_room(self, num_bytes: int, *, owner: str = "", idempotency_key: str | None = None) -> None:
        """Whether a job whose images and texts are so large would be admitted now; ``submit`` decides.

        A key that this owner has used is let through: its job is here already. Raises ``Overloaded``.
        """
        ...

    async def spend(self, owner: str, limit: RateLimit, *, count: int = 1) -> None:
        """Take tokens out of the owner's bucket, all or none. ``count`` is at most ``limit.burst``.

        Raises ``RateLimited`` with the seconds until there are so many.
        """
        ...

    async def submit(self, job: Job, *, idempotency: Idempotency | None = None, max_open: int | None = None) -> str:
        """Append ``response.created``, and ``response.queued`` if no runner has room, then offer the job.

        Returns the id of the response to follow: the job's, or that of the earlier job of this owner with the same
        idempotency key and body, in which case nothing was submitted. Keys are known for as long as their response.

        Jobs that wait are taken fairly: a job of an owner with few of them does not wait for all of another's. A
        runner that had an image of a job lately is preferred while it has room.

        A job that no runner could start in time, or whose runner fell silent and that no other one takes over, ends
        with ``response.failed``: a log always comes to a terminal event.

        Raises:
            Overloaded: as many jobs or bytes wait as the queue admits; nothing was kept. Its ``retry_after_s``, 1 to
                60, comes from the rate at which jobs ended lately. A job's bytes are those of its texts and of its
                images, counted for each job that has them.
            RateLimited: the owner has ``max_open`` open jobs; nothing was kept.
            IdempotencyConflict: the key came with another body before.
            ImageNotFound: an image of the job is gone.
            NotReady: the broker was closed.
        """
        ...

    async def job(self, response_id: str) -> Job:
        """Raises ``ResponseNotFound``."""
        ...

    async def token_ids(self, response_id: str) -> tuple[int, ...] | None:
        """What was generated for an ended response, kept as long as its log; ``None`` where no runner told.

        Whose it is, ``job`` says. Raises ``ResponseNotFound``.
        """
        ...

    async def events(self, response_id: str) -> Sequence[Event]:
        """The log so far. Raises ``ResponseNotFound``."""
        ...

    def follow(self, response_id: str, *, starting_after: int = -1, deltas: bool = True) -> AsyncIterator[Event]:
        """Events with a greater sequence number, those to come included; ends after the terminal one.

        Without ``deltas`` it passes over ``step.delta``, which are most of all, and is not woken for them.

        Any number may follow at once. Raises ``ResponseNotFound`` at the first step, or later if the log is gone.
        """
        ...

    async def cancel(self, response_id: str) -> None:
        """Ask for the end of a response. A waiting one ends at once; of a running one its runner hears. Idempotent.

        Raises ``ResponseNotFound``.
        """
        ...

    async def note_reading(self, response_ids: Sequence[str], *, reader: str, for_s: float) -> None:
        """This reader, a gateway, says that somebody reads these responses from now for so long.

        It replaces what the same reader said of them before. Unknown ids are passed over. A reader says it again every
        ``SAY_AGAIN_S``, and sooner if it was not heard.
        """
        ...

    async def cancel_unread(self, response_id: str, *, reader: str) -> float:
        """``cancel``, unless by the word of another reader somebody reads it.

        Returns for how many seconds still by that word; 0 if it was cancelled or has ended. Where readers could not be
        heard lately, it returns how much time they are given yet to say their word again. Raises
        ``ResponseNotFound``.
        """
        ...

    async def runners(self) -> Sequence[RunnerStatus]:
        """The runners heard of lately."""
        ...

    async def take(self, runner_id: str, *, room: int) -> Sequence[Lease]:
        """Wait until there is work, then lease at least one and at most ``room`` jobs, of each owner the oldest first.

        Cancelling the call loses nothing: what it was about to return is offered again.

        Raises ``BrokerClosed``.
        """
        ...

    async def publish(
        self,
        lease: Lease,
        events: Sequence[Event],
        *,
        num_before: int | None = None,
        token_ids: Sequence[int] | None = None,
    ) -> None:
        """Number and append events to the response's log, all or none. After a terminal event it is closed.

        num_before: how many events were published under this lease before, so that a call which repeats one whose
        answer was lost adds nothing twice; without it, nothing is compared.

        token_ids: with a terminal event all that was generated, for a response that continues this one.

        ``response.restarted`` is not the runner's to write: the broker does when it leases a job again.

        Raises:
            ValueError: something follows a terminal event, or belongs to another response.
            LeaseLost: the job ended, or moved on to another runner; stop working on it.
        """
        ...

    async def give_back(self, lease: Lease, *, is_lost: bool = False) -> None:
        """Offer the job again, before all that wait: its runner is about to stop.

        The next lease has a higher ``attempt``. Unless the work on this one ``is_lost``, because the engine died of it
        maybe, this one does not count among those that a job is given.

        A job whose end was asked for is cancelled. Where no other runner is ready, or no attempt is left, it ends with
        ``response.failed``. Raises ``LeaseLost``.
        """
        ...

    def cancellations(self, runner_id: str) -> AsyncIterator[str]:
        """Ids of responses leased to this runner whose end was asked for, those asked before the call included.

        Never ends by itself. One reader per runner.
        """
        ...

    async def heartbeat(self, status: RunnerStatus) -> None: ...

    async def aclose(self) -> None:
        """Wake every waiting call: iterators end, ``take`` raises ``BrokerClosed``. Idempotent."""
        ...


class LeaseLost(Exception):
    """The work is no longer this runner's. Not an ``IlvrError``: no caller of the API sees it."""


class BrokerClosed(Exception):
    """There will be no more work. Not an ``IlvrError``: it ends a runner's loop and is never an answer."""
