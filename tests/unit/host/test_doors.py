from __future__ import annotations

from typing import get_args

import pytest

from iapeer.core.settings import make_settings
from iapeer.host.doors import Doors
from iapeer.runtimes.spec import Door


@pytest.fixture
def doors() -> Doors:
    return Doors(make_settings({"HOME": "/h"}))


def test_every_door_that_a_manifest_may_name_is_made_and_kept(doors: Doors) -> None:
    assert sorted(doors) == sorted(get_args(Door))
    assert len(doors) == len(list(doors))
    for name in doors:
        assert doors[name].name == name
        assert doors[name] is doors[name]


def test_there_is_no_other_door(doors: Doors) -> None:
    assert "letterbox" not in doors
    with pytest.raises(KeyError):
        doors["letterbox"]
