"""Generate a street with exact geometry, on which the demo drives and is localized.

Map frame: x along the street, y to the left, z up, metres, the road at z = 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.demo.street import facade, furniture, passers_by, roof, sky, weather
from pixloc_ros.demo.street.furniture import Car, Tree
from pixloc_ros.demo.street.ground import FACADE_M, KERB_M, GroundPicture, Layout
from pixloc_ros.demo.street.house import GROUND_FLOOR_M, SHOPS, UPPER_FLOOR_M, plan
from pixloc_ros.demo.street.sessions import SESSIONS, StreetSession
from pixloc_ros.demo.street.sky import Sky
from pixloc_ros.demo.street.surfaces import Array, Light, Surface, Texture, Wall

CLEAR_SKY = Sky()


@dataclass(frozen=True, slots=True, eq=False)
class Street:
    """All surfaces of the street, and the sky around it.

    arrays: arrays over all surfaces, for the renderer: corners (N, 4, 3), normals (N, 3),
    map_from_texel (N, 4, 3), two_sided (N,), edge (N,).
    sky_arrays: the same for the sky, whose corners are directions.
    """

    layout: Layout
    cars: tuple[Car, ...]
    arrays: dict[str, NDArray]
    textures: list[Texture]
    sky_arrays: dict[str, NDArray]
    sky_textures: list[Texture]

    @staticmethod
    def generate(
        seed: int = 0, length_m: float = 110.0, session: StreetSession = SESSIONS["mapping"]
    ) -> Street:
        """Build the street in the conditions of a session; a seed always gives the same one."""
        light = session.light
        layout = Layout.curve(length_m)
        cars = _park(layout, seed, session.moved_cars)
        trees = _plant(layout, np.random.default_rng([seed, 3]))
        surfaces = _houses(layout, session, seed)
        surfaces += _furnish(layout, light, seed, trees, session.leaves)
        for index, car in enumerate(cars):
            surfaces += furniture.build_car(car, light, np.random.default_rng([seed, 4, index]))
        surfaces += _walk(layout, session, seed)
        surfaces += _ground(layout, session, seed, cars, trees)
        if session.snow:
            surfaces = weather.under_snow(surfaces, np.random.default_rng([seed, 10]))
        if session.lamps:
            surfaces = weather.under_lamps(surfaces, _lantern_places(layout))
        return Street.of(layout, surfaces, np.random.default_rng([seed, 6]), cars, session.sky)

    @staticmethod
    def of(
        layout: Layout,
        surfaces: list[Surface],
        rng: np.random.Generator,
        cars: tuple[Car, ...] = (),
        above: Sky = CLEAR_SKY,
    ) -> Street:
        """Build a street of these surfaces, under its own sky."""
        return Street(layout, cars, *_packed(surfaces), *_packed(sky.build(rng, above)))


def _packed(surfaces: list[Surface]) -> tuple[dict[str, NDArray], list[Texture]]:
    corners = np.stack([s.corners for s in surfaces])
    normals = np.cross(corners[:, 3] - corners[:, 0], corners[:, 1] - corners[:, 0])
    arrays = {
        "corners": corners,
        "normals": normals / np.linalg.norm(normals, axis=1, keepdims=True),
        "map_from_texel": np.stack([s.map_from_texel for s in surfaces]),
        "two_sided": np.array([s.two_sided for s in surfaces]),
        "edge": np.array([s.edge for s in surfaces]),
    }
    return arrays, [s.texture for s in surfaces]


def _plots(layout: Layout, seed: int) -> Iterator[tuple[Array, Array, int]]:
    """Yield every house's front corners (left, right, seen from the road) and floors."""
    for side in (1, -1):
        rng = np.random.default_rng([seed, 1, side + 1])
        x, last = float(layout.nodes[0, 0]), float(layout.nodes[-1, 0])
        while x < last - 6.0:
            end = x + rng.uniform(7.0, 12.5)
            end = last if last - end < 6.0 else end
            setback = FACADE_M + rng.choice([0.0, 0.0, 0.25, 0.5])
            ends = [layout.at(x, side * setback, KERB_M), layout.at(end, side * setback, KERB_M)]
            left, right = ends if side > 0 else ends[::-1]
            yield left, right, int(rng.integers(2, 5))
            x = end


def _houses(layout: Layout, session: StreetSession, seed: int) -> list[Surface]:
    surfaces: list[Surface] = []
    light = session.light
    names = np.random.default_rng([seed, 9]).permutation(SHOPS).tolist()
    for index, (left, right, floors) in enumerate([*_plots(layout, seed), *_ends(layout)]):
        rebuilt = np.random.default_rng([seed, 12, index])
        rng = np.random.default_rng([seed, 2, index])
        if rebuilt.uniform() < session.rebuilt:
            rng, floors = rebuilt, int(rebuilt.integers(2, 5))
        width = float(np.linalg.norm(right - left))
        house = plan(
            Wall(left, (right - left) / width), width, floors, names[index % len(names)], rng
        )
        changed = np.random.default_rng([seed, 11, index])
        repainted, scaffolded = changed.uniform(size=2) < (session.repainted, session.scaffolded)
        surfaces += facade.build(house, light, rng, changed if repainted else None)
        surfaces += roof.build(house, light, rng)
        if scaffolded:
            surfaces += passers_by.scaffold(house, light, changed)
    return surfaces


def _ends(layout: Layout) -> list[tuple[Array, Array, int]]:
    """Return the houses across both ends of the street."""
    first, last = float(layout.nodes[0, 0]), float(layout.nodes[-1, 0])
    reach = FACADE_M + 1.0
    return [
        (layout.at(last, reach, KERB_M), layout.at(last, -reach, KERB_M), 4),
        (layout.at(first, -reach, KERB_M), layout.at(first, reach, KERB_M), 3),
    ]


def _park(layout: Layout, seed: int, moved_share: float) -> tuple[Car, ...]:
    """Park cars on both sides; in a share of the bays they differ from the mapping drive."""
    rng, cars = np.random.default_rng([seed, 5]), []
    for side in (1, -1):
        for x in np.arange(float(layout.nodes[0, 0]) + 3.0, float(layout.nodes[-1, 0]) - 3, 5.6):
            chance, jitter = rng.uniform(size=2), rng.normal(0, 0.12, 2)
            here, there = (rng.spawn(1)[0] for _ in range(2))
            taken = chance[1] < 0.55
            if chance[0] < moved_share:
                taken, here = not taken, there
            if taken:
                place = layout.at(x + jitter[0], side * 3.72 + jitter[1] * 0.4)
                turn = float(layout.heading(x)) + (np.pi if side > 0 else 0.0)
                cars.append(furniture.random_car(place[0], place[1], turn, here))
    return tuple(cars)


def _plant(layout: Layout, rng: np.random.Generator) -> list[Tree]:
    trees = []
    for side in (1, -1):
        for x in np.arange(layout.nodes[0, 0] + 5, layout.nodes[-1, 0] - 4, 13.0):
            if rng.uniform() < 0.55:
                spot = layout.at(x + rng.uniform(0, 7), side * 5.5)
                trees.append(Tree(spot[0], spot[1], rng.uniform(4.2, 5.0), rng.uniform(1.3, 1.7)))
    return trees


def _furnish(
    layout: Layout, light: Light, seed: int, trees: list[Tree], leaves: bool
) -> list[Surface]:
    rng, surfaces = np.random.default_rng([seed, 7]), []
    for tree in trees:
        surfaces += furniture.build_tree(tree, light, rng, leaves)
    for side, x in _lamp_places(layout):
        foot = layout.at(x, side * 5.05, KERB_M)
        surfaces += furniture.build_lamp(foot, np.array([0.0, -side, 0.0]), light, rng)
    for k, x in enumerate(np.arange(layout.nodes[0, 0] + 14, layout.nodes[-1, 0] - 5, 17.0)):
        turn = float(layout.heading(x))
        ahead = np.array([np.cos(turn), np.sin(turn), 0.0]) * (1 if k % 2 else -1)
        foot = layout.at(x, -5.0 if k % 2 else 5.0, KERB_M)
        surfaces += furniture.build_sign(foot, ahead, k % 3, light)
    return surfaces


def _lamp_places(layout: Layout) -> Iterator[tuple[float, float]]:
    for k, x in enumerate(np.arange(layout.nodes[0, 0] + 4, layout.nodes[-1, 0] - 3, 11.0)):
        yield (1.0 if k % 2 else -1.0), float(x)


def _lantern_places(layout: Layout) -> Array:
    """Return the positions (L, 3) in the map frame where furniture.build_lamp puts lanterns."""
    heads = [layout.at(x, side * 3.95, KERB_M + 5.6) for side, x in _lamp_places(layout)]
    return np.array(heads)


def _walk(layout: Layout, session: StreetSession, seed: int) -> list[Surface]:
    """Return people on the pavements, some of them crossing the road."""
    rng, surfaces = np.random.default_rng([seed, 12]), []
    first, last = float(layout.nodes[0, 0]), float(layout.nodes[-1, 0])
    for _ in range(round(session.people_per_100m * (last - first) / 100.0)):
        x, side = rng.uniform(first, last), rng.choice([-1.0, 1.0])
        foot = layout.at(x, side * rng.uniform(2.6, 7.2), KERB_M)
        surfaces += passers_by.person(foot, float(layout.heading(x)), session.light, rng)
    return surfaces


def _ground(
    layout: Layout, session: StreetSession, seed: int, cars: tuple[Car, ...], trees: list[Tree]
) -> list[Surface]:
    light, picture = session.light, GroundPicture(layout, np.random.default_rng([seed, 8]))
    picture.paint_road()
    picture.paint_pavement()
    if session.snow:
        picture.cover_with_snow()
    for left, right, floors in _plots(layout, seed):
        height = GROUND_FLOOR_M + UPPER_FLOOR_M * floors + 1.5
        normal = np.array([right[1] - left[1], left[0] - right[0], 0.0])
        if light.incidence(normal) == 0.0:
            picture.cast_upright(np.array([left[:2], right[:2]]), height, light)
    for side, x in _lamp_places(layout):
        foot = layout.at(x, side * 5.05)[:2]
        picture.cast_upright(np.add(foot, [[0, -0.07], [0, 0.07]]), 5.8, light)
    for tree in trees:
        picture.cast_tree(tree, light, session.leaves)
    for car in cars:
        picture.cast_car(car, light)
    return picture.surfaces(light)
