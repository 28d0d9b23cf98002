"""Dataclasses of options as parameters of commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from pixloc_ros.cli.option_groups import option_groups


@dataclass(frozen=True, slots=True)
class Size:
    width: Annotated[int, typer.Option(min=1, help="in pixels")]
    crop: Annotated[bool, typer.Option("--crop/--pad", help="how to fit")] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    image: Annotated[list[str] | None, typer.Option("--image", help="repeatable")] = None


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @option_groups
    def fit(
        name: Annotated[str, typer.Argument()],
        size: Size,
        *,
        quality: Annotated[float, typer.Option(help="0 to 1")] = 0.5,
        files: Files,
    ) -> None:
        """Fit images."""
        typer.echo(repr((name, size, quality, files)))

    return app


def output(app: typer.Typer, *words: str) -> str:
    return CliRunner().invoke(app, list(words)).output.strip()


def test_a_command_gets_the_options_of_a_group_as_one_object(app):
    given = output(app, "it", "--width", "3", "--pad", "--image", "a", "--image", "b")
    assert given == repr(("it", Size(3, False), 0.5, Files(image=["a", "b"])))


def test_options_that_are_not_given_have_the_defaults_of_the_group(app):
    assert output(app, "it", "--width", "3") == repr(("it", Size(3), 0.5, Files()))


def test_help_lists_options_in_the_order_of_parameters_and_fields(app):
    text = output(app, "--help")
    names = ["--width", "--crop", "--quality", "--image"]
    places = [text.index(name) for name in names]
    assert places == sorted(places)
    assert "Fit images." in text


def test_a_field_without_a_default_is_required_and_limits_hold(app):
    assert "Missing option '--width'" in output(app, "it")
    assert "Invalid value for '--width'" in output(app, "it", "--width", "0")
