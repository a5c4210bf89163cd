"""The benchmark of the gateway alone: that it runs, and that a lost event would be counted."""

from array import array

from benchmarks.gateway.__main__ import EVENTS_PER_S, MEMORY_BAR_KIB, measure
from benchmarks.gateway.client import Reader

EVENT = b'id: %d\nevent: step.delta\ndata: {"type":"step.delta","text":"1.5"}\n\n'


async def test_a_few_streams_for_a_moment() -> None:
    turn = await measure(50, 3)
    assert turn.lost == 0
    assert turn.events >= 50 * EVENTS_PER_S * 1.5  # of three seconds; the machine may be busy
    assert 0 < turn.p50_late_ms < turn.most_late_ms
    assert 0 < turn.idle_kib <= MEMORY_BAR_KIB


async def test_a_gap_is_a_defect() -> None:
    late_s: array[float] = array("d")
    defects: list[str] = []
    reader = Reader(late_s, defects)
    reader.begun.set_result(None)
    reader.data_received(
        b"HTTP/1.1 200 OK\r\nx-request-id: req_1\r\n\r\n2a\r\n" + EVENT % 0 + b"\r\n2a\r\n" + EVENT % 1
    )
    assert (len(late_s), defects) == (2, [])
    part = b"\r\n2a\r\n" + EVENT % 3
    reader.data_received(part[:10])
    reader.data_received(part[10:])
    assert len(late_s) == reader.num_words == 3
    assert defects == ["event 3 came where 2 was due"]
