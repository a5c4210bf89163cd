"""The real Prometheus with the real configuration on a real fleet: the dashboard has data, and no alert fires."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio
import yaml

from tests.broker.redis_server import free_port
from tests.faults.fleet import Fleet
from tests.observability.test_alerts import PROMETHEUS
from tests.observability.test_dashboard import QUERIES
from tests.service.helpers import base64_image, picture

ASK = {"question": "Say RRDD, the 7th"}
RANGE = "5s"  # of a scrape each second


@pytest_asyncio.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    program = (
        "from ilvr.telemetry import telemetry; from tests.faults.scripted_runner_process import main\n"
        "with telemetry('runner'): status = main()\n"
        "raise SystemExit(status)"
    )

    def command(index: int, port: int) -> list[str]:
        words = ["--metrics-port", str(port), "--max-num-seqs", "4", "--seconds", "0.1"]
        return [sys.executable, "-c", program, *words, "--runs", str(tmp_path / "runs.txt")]

    fleet = Fleet(tmp_path, command, {}, num_gateways=2, num_runners=1, runner_start_s=60.0)
    async with fleet.running():
        yield fleet


@contextmanager
def prometheus(folder: Path, targets: dict[str, list[str]]) -> Iterator[str]:
    """The address of one that scrapes the targets of each job every second, otherwise as deploy/prometheus says."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / "alerts.yml")]
    jobs = [job["job_name"] for job in config["scrape_configs"] if "dns_sd_configs" in job]
    assert jobs == list(targets)
    config["scrape_configs"] = [{"job_name": job, "static_configs": [{"targets": targets[job]}]} for job in jobs]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)


async def ask(client: httpx.AsyncClient, path: str, **params: str) -> Any:
    """Raises ``httpx.HTTPError``: it is not there yet, or refuses the query."""
    answer = (await client.get(f"/api/v1/{path}", params=params)).raise_for_status()
    return answer.json()["data"]


async def test_dashboard_has_data_and_no_alert_fires(fleet: Fleet, tmp_path: Path) -> None:
    hosts = [url.removeprefix("http://") for url in (*fleet.urls, *fleet.runner_urls)]
    with prometheus(tmp_path, {"gateway": hosts[:2], "runner": hosts[2:]}) as url:
        async with httpx.AsyncClient(base_url=url, timeout=10) as client:
            await until_scraped(client, len(hosts))
            for _ in range(3):
                await use(fleet)
                await asyncio.sleep(1.2)
            empty = []
            for title, query, _ in QUERIES:
                result = (await ask(client, "query", query=query.replace("$__rate_interval", RANGE)))["result"]
                if not result and "vllm:" not in query:  # there is no vLLM behind this runner
                    empty.append(f"{title}: {query}")
            assert empty == []
            assert (await ask(client, "alerts"))["alerts"] == []
            rules = [rule for group in (await ask(client, "rules"))["groups"] for rule in group["rules"]]
            assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []


async def until_scraped(client: httpx.AsyncClient, num_targets: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                up = (await ask(client, "query", query="up"))["result"]
            except httpx.HTTPError:
                up = []
            if len(up) == num_targets and all(one["value"][1] == "1" for one in up):
                return
            await asyncio.sleep(0.2)


async def use(fleet: Fleet) -> None:
    """Everything that a panel has a line for: answers, a refusal, an image, a broker that does not know a response."""
    for url in fleet.urls:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            asked = {**ASK, "images": [base64_image(picture(30, 30))]}
            answers = await asyncio.gather(*(client.post("/v1/reason", json=asked) for _ in range(3)))
            assert {answer.json()["answer"] for answer in answers} == {"RRDD"}
            assert (await client.post("/v1/reason", json={})).status_code == 422
            assert (await client.get("/v1/reason/resp_" + 32 * "0")).status_code == 404
