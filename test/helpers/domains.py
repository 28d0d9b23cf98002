"""ROS domains that no other test uses meanwhile, whichever process it runs in."""

from __future__ import annotations

import fcntl
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Above 101 the ports of DDS meet the ephemeral ports of Linux. 0 is everybody's default, and shells
# have those up to 50 (tools/ros_env.sh).
DOMAINS = range(51, 102)
LOCKS = Path(tempfile.gettempdir()) / "pixloc_ros_test_domains"


@contextmanager
def own_domain() -> Iterator[int]:
    """A ROS_DOMAIN_ID of our own: a lock that ends with this process at the latest."""
    LOCKS.mkdir(exist_ok=True)
    for domain in random.SystemRandom().sample(DOMAINS, len(DOMAINS)):
        with (LOCKS / str(domain)).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield domain
            return
    raise RuntimeError(f"all {len(DOMAINS)} ROS domains are in use: see the locks in {LOCKS}")
