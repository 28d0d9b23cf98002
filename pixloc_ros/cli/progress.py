"""The progress bar for all long work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")


def track(
    items: Iterable[Item],
    description: str,
    total: int | None = None,
    describe: Callable[[Item], str] | None = None,
) -> Iterator[Item]:
    """Iterate with a bar on stderr that shows the count and, if the total is known, the time left.

    describe: text about the latest item, shown beside the description.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total)
        for item in progress.track(items, total=total, task_id=task):
            if describe is not None:
                progress.update(task, description=f"{description} {describe(item)}")
            yield item
