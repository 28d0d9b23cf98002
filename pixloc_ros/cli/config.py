"""`pixloc config`: list every setting with its default."""

from __future__ import annotations

import typer
import yaml
from rich.console import Console
from rich.table import Table

from pixloc_ros.config import Config, flatten, setting


def config(
    as_yaml: bool = typer.Option(False, "--yaml", help="Print a YAML file to start from."),
) -> None:
    """List every setting with its default. Example: pixloc config --yaml > my.yaml"""
    if as_yaml:
        print(yaml.safe_dump(Config().model_dump(mode="json"), sort_keys=False), end="")
        return
    table = Table("setting", "default", "meaning")
    for name, value in flatten(Config()):
        table.add_row(name, repr(value), setting(name).description)
    Console().print(table)
