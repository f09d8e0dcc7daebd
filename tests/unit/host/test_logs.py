from __future__ import annotations

from pathlib import Path

import pytest

from iapeer.core.clock import SystemClock
from iapeer.core.settings import make_settings
from iapeer.host.logs import open_logs
from iapeer.storage.paths import Paths


@pytest.mark.parametrize(
    ("changes", "warned"),
    [({}, False), ({"idle_s": 600.0}, True), ({"ephemeral_quiet_s": 601.0}, True)],
)
def test_bounds_in_an_order_that_makes_no_sense_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, float], warned: bool
) -> None:
    settings = make_settings({"HOME": str(tmp_path)}, flags=changes)
    paths = Paths(settings.root)
    paths.lifecycle_log.parent.mkdir(mode=0o700, parents=True)
    open_logs(settings, paths, SystemClock())
    assert bool(caplog.records) == warned
    assert paths.lifecycle_log.exists() == warned
    if warned:
        assert "ev=settings-order" in paths.lifecycle_log.read_text(encoding="utf-8")


def test_what_a_lane_learned_of_a_death_goes_to_the_lifecycle_log(tmp_path: Path) -> None:
    settings = make_settings({"HOME": str(tmp_path)})
    paths = Paths(settings.root)
    paths.lifecycle_log.parent.mkdir(mode=0o700, parents=True)
    open_logs(settings, paths, SystemClock()).lifecycle("death", identity="demo-ann")
    assert "ev=death identity=demo-ann" in paths.lifecycle_log.read_text(encoding="utf-8")
    assert not paths.exits_log.exists()
