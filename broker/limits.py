"""What a broker may hold, and how long it waits for whom."""

from dataclasses import dataclass

MIB = 1 << 20
RESERVED_PART = 8  # an eighth as much more is for owners of whom there is nothing yet


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerLimits:
    """Every number here bounds memory or time; none of them changes an answer."""

    max_waiting: int = 256
    """Jobs admitted beyond those a runner has room for. Then ``num_reserved`` more, of owners with none waiting."""

    max_waiting_bytes: int = 128 * MIB
    """Questions and images of those jobs. Then ``reserved_bytes`` more, of owners with none waiting."""

    max_image_bytes: int = 256 * MIB
    """All stored images. Then ``reserved_image_bytes`` more, of owners whose images no open job has."""

    image_ttl_s: float = 15 * 60
    """Counted from the last use of an image; those of open jobs stay."""

    keep_finished_s: float = 15 * 60
    max_finished_bytes: int = 64 * MIB
    """Finished logs, measured as JSON; as Python objects they take a few times that. The oldest go first."""

    runner_silence_s: float = 15.0
    """A runner not heard of for so long is gone. Fifteen heartbeats: long enough for a step of a large model on a small
    CPU that keeps the engine from answering."""

    no_runner_grace_s: float = 5.0
    """How long a job waits while no runner says that it is ready; then it ends with ``response.failed``."""

    deadline_slack_s: float = 5.0
    """How long after its deadline a running job is ended by the broker, if its runner does not."""

    max_attempts: int = 2
    """Leases of one job. A job that has taken two runners down with it is not given a third."""

    @property
    def num_reserved(self) -> int:
        """Places in the queue beyond ``max_waiting``, each for the first waiting job of an owner: who fills the queue
        does not shut out the others."""
        return max(1, self.max_waiting // RESERVED_PART) if self.max_waiting else 0

    @property
    def reserved_bytes(self) -> int:
        """As ``num_reserved``, beyond ``max_waiting_bytes``."""
        return self.max_waiting_bytes // RESERVED_PART

    @property
    def reserved_image_bytes(self) -> int:
        """Beyond ``max_image_bytes``, for owners of whom no image is pinned: whose open jobs fill the store does not
        shut out the others."""
        return self.max_image_bytes // RESERVED_PART
