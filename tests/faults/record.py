"""What one client of the crowd asked and was told, and what is wrong with it."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

TERMINAL = ("response.completed", "response.incomplete", "response.cancelled", "response.failed")
Outcome = Literal["completed", "failed", "lost", "wrong"]


@dataclass
class Request:
    """``number`` is unlike any other's of the fleet; ``answer`` is the right one."""

    number: int
    body: dict[str, Any]
    answer: str

    @property
    def key(self) -> str:
        """Its idempotency key."""
        return f"crowd-{self.number}"


@dataclass
class Record:
    """Everything that was received, in order, over all connections."""

    request: Request
    response_ids: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)  # by code, before it was accepted
    num_resumed: int = 0
    num_forgotten: int = 0  # times that the log of its response was gone
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def hear(self, event: dict[str, Any]) -> None:
        """An event as it came."""
        response_id = event["response_id"]
        if response_id not in self.response_ids:
            self.response_ids.append(response_id)
        expected = self.last_number + 1
        if event["sequence_number"] != expected:
            self.faults.append(f"event {event['sequence_number']} ({event['type']}) came where {expected} was due")
        if self.is_over:
            self.faults.append(f"{event['type']} came after the end")
        self.events.append(event)

    def forget(self) -> None:
        """Its response is not known any more: whatever comes next is of another."""
        self.num_forgotten += 1
        self.events.clear()

    @property
    def last_number(self) -> int:
        return int(self.events[-1]["sequence_number"]) if self.events else -1

    @property
    def is_over(self) -> bool:
        return bool(self.events) and self.events[-1]["type"] in TERMINAL

    @property
    def num_restarts(self) -> int:
        return sum(event["type"] == "response.restarted" for event in self.events)

    @property
    def outcome(self) -> Outcome:
        """``failed``: with a terminal event that says that it can be sent again; ``wrong``: with any other end."""
        if not self.is_over:
            return "lost"
        last = self.events[-1]
        if last["type"] == "response.failed" and last["error"]["retryable"]:
            return "failed"
        return "wrong" if self.problems() else "completed"

    @property
    def is_answered_twice(self) -> bool:
        """Two ends, or two responses to one key, but for those that were forgotten."""
        num_ends = sum(event["type"] in TERMINAL for event in self.events)
        return num_ends > 1 or len(self.response_ids) > 1 + self.num_forgotten

    def problems(self) -> list[str]:
        """What is wrong with an answer, in words: nothing, if it is the right one and was told without a flaw."""
        found = list(self.faults)
        last = self.events[-1]
        if last["type"] != "response.completed":
            return [*found, f"it ended with {last['type']}: {last.get('error')}"]
        response = last["response"]
        if response["answer"] != self.request.answer:
            found.append(f"the answer is {response['answer']!r}, not {self.request.answer!r}")
        told, finished = _replayed(self.events)
        steps = [step.get("text", step.get("size")) for step in response["steps"]]
        if not told == finished == steps:
            found.append(f"deltas make {told}, finished steps are {finished}, the response has {steps}")
        if response["metadata"] != self.request.body.get("metadata", {}):
            found.append("the metadata is not its own")
        return found


def _replayed(events: list[dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    """The steps as deltas tell them, and as ``step.completed`` does, since the last restart."""
    told: dict[int, Any] = {}
    finished: dict[int, Any] = {}
    for event in events:
        index = event.get("index")
        match event["type"]:
            case "response.restarted":
                told, finished = {}, {}
            case "step.started":
                told[index] = "" if event["step_type"] == "text" else 0
            case "step.delta":
                told[index] = told[index] + event["text"] if "text" in event else event["size"]
            case "step.completed":
                finished[index] = event.get("text", event.get("size"))
    return [told[index] for index in sorted(told)], [finished[index] for index in sorted(finished)]
