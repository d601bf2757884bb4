"""Expiry follows the database's clock, however wrong the machine's is."""

import asyncio
import time
from datetime import UTC, datetime

import httpx2
import pytest

from app.clock import Reading, SystemClock, running_seconds
from app.config import Settings
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from tests.support.app import Store, running

TWO_HOURS = 7200.0


class Machine:
    """A machine's clock that can be set."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead

    def __call__(self) -> float:
        return time.time() + self.ahead


def reading(*, behind: float = 0.0, took: float = 0.0) -> Reading:
    sent = running_seconds()
    return Reading(time.time() + took / 2 - behind, sent, sent + took)


def seconds_off(clock: SystemClock) -> float:
    return (clock.now() - datetime.now(UTC)).total_seconds()


def test_it_tells_the_machines_time_at_first() -> None:
    clock = SystemClock()
    assert seconds_off(clock) == pytest.approx(0, abs=0.01)
    assert clock.offset_seconds == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("ahead", [TWO_HOURS, -0.5])
def test_it_follows_the_database(ahead: float) -> None:
    clock = SystemClock(Machine(ahead))
    assert seconds_off(clock) == pytest.approx(ahead, abs=0.01)
    clock.correct(reading())
    assert seconds_off(clock) == pytest.approx(0, abs=0.01)
    assert clock.offset_seconds == pytest.approx(ahead, abs=0.01)


def test_setting_the_machines_clock_changes_nothing() -> None:
    machine = Machine()
    clock = SystemClock(machine)
    machine.ahead = TWO_HOURS
    assert seconds_off(clock) == pytest.approx(0, abs=0.01)
    assert clock.offset_seconds == pytest.approx(TWO_HOURS, abs=0.01)


@pytest.mark.parametrize(("behind", "took"), [(0.01, 0.0), (0.4, 1.0)])
def test_differences_within_the_noise_are_ignored(behind: float, took: float) -> None:
    clock = SystemClock()
    clock.correct(reading(behind=behind, took=took))
    assert seconds_off(clock) == pytest.approx(0, abs=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [TWO_HOURS, -TWO_HOURS])
async def test_a_machine_with_a_wrong_clock_hides_and_deletes_nothing_early(
    settings: Settings, embedder: FakeEmbedder, ahead: float
) -> None:
    chosen = settings.model_copy(update={"sweep_interval_seconds": 0.05})
    async with running(create_app(settings, embedder=embedder)) as right:
        await Store(right).put(["users"], "food", {"text": "ramen"}, ttl=60)
        await Store(right).put(["users"], "snack", {"text": "nuts"}, ttl_seconds=0.1)
        wrong_clock = SystemClock(Machine(ahead))
        app = create_app(chosen, embedder=embedder, clock=wrong_clock)
        async with running(app, worker=True) as wrong:
            await asyncio.sleep(0.3)
            for client in (wrong, right):
                found = await Store(client).search(["users"])
                assert [item["key"] for item in found] == ["food"]
            await Store(wrong).put(["users"], "drink", {"text": "tea"}, ttl=1)
            assert await Store(right).get(["users"], "drink") is not None
            await assert_warned(wrong, ahead)
        history = await Store(right).versions(["users"], "food")
        assert [version["action"] for version in history] == ["put"]
        ended = await Store(right).versions(["users"], "snack")
        assert [version["action"] for version in ended] == ["expire", "put"]


async def assert_warned(client: httpx2.AsyncClient, ahead: float) -> None:
    clock = (await client.get("/readyz")).json()["clock"]
    assert clock["offset_seconds"] == pytest.approx(ahead, abs=0.5)
    assert "synchronize" in clock["warning"]
