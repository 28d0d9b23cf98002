"""One configuration: what holds it while it changes."""

from __future__ import annotations

from pixloc_ros.config import from_flat
from pixloc_ros.config.holder import ConfigHolder


def test_who_takes_the_current_configuration_keeps_it_whole_while_another_is_put_in_force():
    before, after = (from_flat({"acceptance.max_cost": cost}) for cost in (0.2, 0.6))
    holder = ConfigHolder(before)
    taken = holder.current
    holder.replace(after)
    assert holder.current is after
    assert taken.acceptance.max_cost == 0.2
