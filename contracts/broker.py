"""The broker: the one thing between gateways and runners.

Two implementations pass one contract suite (``tests/broker/contract.py``): in-process, and Redis. The broker numbers
the events of a response, so a log is gapless by construction, whoever writes to it.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from msgspec import Struct

from contracts.events import Event
from contracts.jobs import Job, Lease, StoredImage


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
    """Gateway side: images, ``submit``, ``job``, ``events``, ``follow``, ``cancel``, ``runners``.

    Runner side: ``take``, ``publish``, ``cancellations``, ``get_image``, ``heartbeat``.
    """

    async def put_image(self, image: StoredImage) -> None:
        """Keep the file under its content hash for a while, and for as long as an open job refers to it.

        Raises ``Overloaded``: images of open jobs leave no place for it.
        """
        ...

    async def get_image(self, image_id: str) -> StoredImage:
        """Raises ``ImageNotFound``."""
        ...

    async def submit(self, job: Job) -> None:
        """Append ``response.created``, and ``response.queued`` if no runner has room, then offer the job.

        A job that no runner could start, or whose runner fell silent and that no other one takes over, ends with
        ``response.failed``: a log always comes to a terminal event.

        Raises:
            Overloaded: as many jobs wait as the queue admits; nothing was kept.
            ImageNotFound: an image of the job is gone.
            NotReady: the broker was closed.
        """
        ...

    async def job(self, response_id: str) -> Job:
        """Raises ``ResponseNotFound``."""
        ...

    async def events(self, response_id: str) -> Sequence[Event]:
        """The log so far. Raises ``ResponseNotFound``."""
        ...

    def follow(self, response_id: str, *, starting_after: int = -1) -> AsyncIterator[Event]:
        """Events with a greater sequence number, those to come included; ends after the terminal one.

        Any number may follow at once. Raises ``ResponseNotFound`` at the first step.
        """
        ...

    async def cancel(self, response_id: str) -> None:
        """Ask for the end of a response. A waiting one ends at once; of a running one its runner hears. Idempotent.

        Raises ``ResponseNotFound``.
        """
        ...

    async def runners(self) -> Sequence[RunnerStatus]:
        """The runners heard of lately."""
        ...

    async def take(self, runner_id: str, *, room: int) -> Sequence[Lease]:
        """Wait until there is work, then lease at least one and at most ``room`` jobs, oldest first.

        Cancelling the call loses nothing: what it was about to return is offered again.

        Raises ``BrokerClosed``.
        """
        ...

    async def publish(self, lease: Lease, events: Sequence[Event]) -> None:
        """Number and append events to the response's log, all or none. After a terminal event it is closed.

        ``response.restarted`` is not the runner's to write: the broker does when it leases a job again.

        Raises:
            ValueError: something follows a terminal event, or belongs to another response.
            LeaseLost: the job ended, or moved on to another runner; stop working on it.
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
