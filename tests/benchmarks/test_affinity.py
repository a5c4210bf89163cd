"""What the benchmark of affinity asks, and what it makes of the answers."""

import pytest

from benchmarks.affinity_plan import Answer, arrivals, counted, reduce

PAGE = "ilvr_runner_images_encoded_total {}\nilvr_runner_encoder_cache_hits_total {}\n"


def test_each_picture_is_asked_about_as_often_and_in_its_lot() -> None:
    asks = arrivals(num_pictures=6, times=4, window=3, rate_per_s=4.0, seed=1)
    for picture in range(6):
        assert [ask.nth for ask in asks if ask.picture == picture] == [0, 1, 2, 3]
    assert {ask.picture for ask in asks[:12]} == {0, 1, 2}
    times_s = [ask.at_s for ask in asks]
    assert times_s == sorted(times_s)
    assert 2.0 < times_s[-1] < 15.0  # 24 arrivals at 4 a second


def test_counts_are_those_of_all_runners() -> None:
    assert counted([PAGE.format("3.0", "1.0"), PAGE.format("4.0", "0.0")]) == {
        "images_encoded": 7.0,
        "encoder_cache_hits": 1.0,
    }
    with pytest.raises(ValueError, match="not exported"):
        counted(["ilvr_runner_images_encoded_total 3.0\n"])


def test_a_turn_is_reduced_to_its_hit_rate_times_and_worst_wait() -> None:
    answers = [Answer(0, 1.0, 100.0), Answer(0, 2.0, 200.0), Answer(1, 50.0, 10.0), Answer(2, 3.0, 30.0)]
    before = {"images_encoded": 10.0, "encoder_cache_hits": 5.0}
    turn = reduce("mazes", 1.0, 0, answers, before, {"images_encoded": 13.0, "encoder_cache_hits": 6.0})
    assert (turn.asked, turn.encoded, turn.hit_rate, turn.worst_queue_ms) == (4, 3, 0.25, 50.0)
    assert (turn.first_p50_ms, turn.first_p90_ms) == (150.0, 190.0)
    assert (turn.again_p50_ms, turn.again_p90_ms) == (20.0, 28.0)


def test_fewer_encoder_calls_than_pictures_are_no_result() -> None:
    nothing = {"images_encoded": 0.0, "encoder_cache_hits": 0.0}
    with pytest.raises(ValueError, match="of 1 questions on 1 pictures"):
        reduce("mazes", 1.0, 0, [Answer(0, 1.0, 1.0)], nothing, nothing)
