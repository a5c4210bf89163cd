"""What the texts of a job take, in the queue and in memory."""

from contracts.jobs import Job

TOKEN_BYTES = 4


def text_bytes(job: Job) -> int:
    """Of the question and of the conversation before it."""
    return len(job.question.encode()) + sum(
        len(turn.text.encode()) + TOKEN_BYTES * len(turn.token_ids or ()) for turn in job.history
    )
