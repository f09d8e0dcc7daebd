"""A real daemon on a throw-away root, with as many peers as a row needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from iapeer.core import env
from iapeer.core.identity import Intelligence
from iapeer.core.ids import new_uid
from iapeer.core.record import RegistryRecord
from iapeer.registry.index import Registry
from iapeer.sessions.process import is_alive
from iapeer.storage.atomic import write_text
from iapeer.storage.launchenv import read_text_or_none
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.offline import offline_read
from iapeer.storage.ledger.rows import SessionRow
from iapeer.storage.paths import Paths
from iapeer.testing.daemon import TestDaemon, wait_until
