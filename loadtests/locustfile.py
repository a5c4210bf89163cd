"""What locust loads: ``locust -f loadtests/locustfile.py``. ``python -m loadtests`` starts it with all that it needs.

The master's ``--plan`` reaches its workers by itself, and what they record comes back with locust's own reports.
"""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from locust import LoadTestShape, events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests.arrivals import num_users_at
from loadtests.profile import Profile, decode_profile
from loadtests.recorder import Recorder
from loadtests.users import Arrivals, Load, Visitor

RECORD = "ilvr_record"
# Workers report every three seconds, the last time after their last request.
REPORT_S = 10.0


@events.init_command_line_parser.add_listener
def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--plan", help="the profile as JSON, and in how many processes it runs")
    parser.add_argument("--record", help="file for what was recorded")


class Plan:
    def __init__(self, environment: Environment) -> None:
        options: Any = environment.parsed_options
        fields: dict[str, Any] = json.loads(options.plan)
        self.num_processes: int = fields.pop("num_processes")
        self.profile: Profile = decode_profile(fields)
        self.record: str | None = options.record


@events.init.add_listener
def init(environment: Environment, **_: Any) -> None:
    """A master adds up what its workers send; whoever is no worker writes it down at the end."""
    if isinstance(environment.runner, MasterRunner):
        plan = Plan(environment)
        Shape.recorder = Recorder(plan.profile.window_s)
    if not isinstance(environment.runner, WorkerRunner):
        environment.events.quitting.add_listener(write_record)


@events.test_start.add_listener
def begin(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, MasterRunner):
        return
    plan = Plan(environment)
    index = getattr(environment.runner, "worker_index", 0)
    load = Load(environment, plan.profile, index, plan.num_processes)
    Arrivals.load = Visitor.load = load
    Shape.recorder = load.recorder


@events.report_to_master.add_listener
def report(client_id: str, data: dict[str, Any]) -> None:
    data[RECORD] = Shape.recorder.take()


@events.worker_report.add_listener
def add_report(client_id: str, data: dict[str, Any]) -> None:
    Shape.recorder.add(data[RECORD])


def write_record(environment: Environment, **_: Any) -> None:
    record = Plan(environment).record
    if record is not None:
        Path(record).write_text(json.dumps(Shape.recorder.take()))


class Shape(LoadTestShape):
    """Open loop: one user a process until all have made their arrivals and these have ended. Closed: the stages."""

    recorder: Recorder = Recorder(1.0)

    def tick(self) -> tuple[int, float, list[Any]] | None:
        assert self.runner is not None
        plan, run_time_s = Plan(self.runner.environment), self.get_run_time()
        if plan.profile.loop == "closed":
            num_users = num_users_at(plan.profile, run_time_s)
            return None if num_users is None else (num_users, num_users, [Visitor])
        is_late = run_time_s > plan.profile.duration_s + plan.profile.drain_s + REPORT_S
        if is_late or self.recorder.num_done >= plan.num_processes:
            return None
        return plan.num_processes, plan.num_processes, [Arrivals]
