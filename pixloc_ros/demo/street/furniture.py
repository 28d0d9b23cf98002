"""Build the objects on the street: parked cars, trees, street lamps and traffic signs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from pixloc_ros.demo.street import materials
from pixloc_ros.demo.street.surfaces import (
    Array,
    Floats,
    Image,
    Light,
    Surface,
    Texture,
    rgb,
)

CAR_TEXELS_PER_M = 64
CAR_WIDTH_M = 1.78
PAINTS = (
    (0.44, 0.07, 0.06),
    (0.62, 0.62, 0.60),
    (0.13, 0.22, 0.42),
    (0.16, 0.17, 0.18),
    (0.46, 0.50, 0.52),
    (0.20, 0.36, 0.30),
    (0.60, 0.43, 0.10),
    (0.56, 0.52, 0.43),
)
# Side outlines from the rear bumper over the roof to the front bumper: (along, up) in metres.
HATCHBACK = (
    *((0.0, 0.3), (0.03, 0.92), (0.45, 1.42), (1.3, 1.5), (2.3, 1.45), (3.1, 0.98)),
    *((4.05, 0.8), (4.2, 0.55), (4.2, 0.28)),
)
VAN = (
    *((0.0, 0.35), (0.0, 1.2), (0.06, 2.05), (2.0, 2.1), (3.4, 2.05), (4.1, 1.25)),
    *((4.75, 1.02), (4.85, 0.6), (4.85, 0.3)),
)


@dataclass(frozen=True, slots=True)
class Car:
    """A parked car: map position of its centre on the ground in metres; heading about z."""

    x: float
    y: float
    heading_rad: float
    colour: tuple[float, float, float]
    outline: tuple[tuple[float, float], ...]

    @property
    def length(self) -> float:
        """Length from bumper to bumper, in metres."""
        return self.outline[-1][0]

    def at(self, along: float, side: float, up: float) -> Array:
        """Convert car coordinates to a map point.

        along: metres from the rear.
        side: metres to the left of the middle.
        """
        ahead = along - 0.5 * self.length
        cos, sin = np.cos(self.heading_rad), np.sin(self.heading_rad)
        return np.array([self.x + ahead * cos - side * sin, self.y + ahead * sin + side * cos, up])

    def footprint(self) -> Array:
        """Return the corners (4, 2) on the ground."""
        half, ends = 0.5 * CAR_WIDTH_M, (0.0, self.length)
        corners = [(ends[0], half), (ends[1], half), (ends[1], -half), (ends[0], -half)]
        return np.array([self.at(along, side, 0.0)[:2] for along, side in corners])


@dataclass(frozen=True, slots=True)
class Tree:
    """Map position of the trunk on the ground, height of the crown's middle and its radius."""

    x: float
    y: float
    height: float
    radius: float


def random_car(x: float, y: float, heading_rad: float, rng: np.random.Generator) -> Car:
    """Return a car of random make and colour."""
    paint = PAINTS[int(rng.integers(len(PAINTS)))]
    return Car(x, y, heading_rad, paint, VAN if rng.uniform() < 0.2 else HATCHBACK)


def build_car(car: Car, light: Light, rng: np.random.Generator) -> list[Surface]:
    """Return both sides, cut out along the outline, and the strips over rear, roof and front."""
    surfaces = [_car_side(car, 1, light, rng), _car_side(car, -1, light, rng)]
    half = 0.5 * CAR_WIDTH_M
    for index, (rear, front) in enumerate(pairwise(car.outline)):
        # Seen from outside, the edge towards the front is the upper one on the rear half.
        a, b = car.at(rear[0], half, rear[1]), car.at(front[0], half, front[1])
        c, d = car.at(front[0], -half, front[1]), car.at(rear[0], -half, rear[1])
        normal = np.cross(b - a, d - a)
        normal *= -1.0 / np.linalg.norm(normal)
        strip = _car_strip(car, index, rng) * light.on(normal)
        surfaces.append(Surface.of([b, c, d, a], Texture.of(strip)))
    return surfaces


def _car_strip(car: Car, index: int, rng: np.random.Generator) -> Floats:
    """Return the albedo of one strip, its upper edge towards the front of the car."""
    shape, last = (48, 112), len(car.outline) - 2
    strip = _lacquer(rng, car.colour, shape)
    glass = {1, 4} if car.outline is HATCHBACK else {4}
    if index in glass:
        strip[5:-5, 8:-8] = np.linspace(0.32, 0.1, 38)[:, None, None] * rgb([0.8, 0.95, 1.1])
        strip[5:-5, 60:75] *= 1.5
    elif index == 0:
        _bumper(strip, (0.42, 0.04, 0.03))
    elif index >= last - 1:
        _bumper(strip[::-1], (0.92, 0.92, 0.85))
    else:
        strip[:, 12::44] *= 0.75
        strip[[1, -2]] *= 0.6
    return strip


def _lacquer(rng: np.random.Generator, colour: materials.Colour, shape: tuple[int, int]) -> Floats:
    """Return car paint: nearly uniform, with soft reflections and a little dust."""
    shine = 0.03 * materials.fractal(shape, rng, (20, 45))
    dust = 0.02 * materials.noise(shape, rng, 1)
    return materials.tinted(np.float32(1) + shine + dust, colour)


def _bumper(strip: Floats, lamp: tuple[float, float, float]) -> None:
    """Add lamps at both ends, a number plate in the middle, and black trim in the last rows."""
    strip[4:20, 3:20] = strip[4:20, -20:-3] = lamp
    strip[6:10, 6:12] = strip[6:10, -12:-6] = 0.97
    strip[24:36, 40:72] = (0.86, 0.85, 0.76)
    for column in range(44, 68, 6):
        strip[27:33, column : column + 3] = 0.12
    strip[-9:] = 0.09


def _car_side(car: Car, side: int, light: Light, rng: np.random.Generator) -> Surface:
    top = max(up for _, up in car.outline)
    shape = (round(top * CAR_TEXELS_PER_M), round(car.length * CAR_TEXELS_PER_M))
    colour, alpha = _side_view(car, shape, rng)
    if side > 0:
        colour, alpha = np.ascontiguousarray(colour[:, ::-1]), np.ascontiguousarray(alpha[:, ::-1])
    ends = (car.length, 0.0) if side > 0 else (0.0, car.length)
    offset = 0.5 * side * CAR_WIDTH_M
    corners = [car.at(ends[0], offset, top), car.at(ends[1], offset, top)]
    corners += [car.at(ends[1], offset, 0.0), car.at(ends[0], offset, 0.0)]
    outward = side * np.array([-np.sin(car.heading_rad), np.cos(car.heading_rad), 0.0])
    return Surface.of(corners, Texture.of(colour * light.on(outward), alpha))


def _side_view(car: Car, shape: tuple[int, int], rng: np.random.Generator) -> tuple[Floats, Image]:
    """Return albedo and cut-out of the right side, rear at the left."""
    scale = CAR_TEXELS_PER_M
    outline = np.array(car.outline) * (scale, -scale) + (0, shape[0])
    colour = _lacquer(rng, car.colour, shape)
    colour *= np.linspace(1.15, 0.70, shape[0], dtype=np.float32)[:, None, None]
    alpha = _cut_out(outline, shape)
    _side_windows(colour, car, outline)
    waist = shape[0] - round(0.62 * scale)
    colour[waist : waist + 2] *= 0.55
    for wheel_m in (0.19 * car.length, 0.80 * car.length):
        _wheel(colour, alpha, (round(wheel_m * scale), shape[0] - round(0.31 * scale)))
    return colour, alpha


def _cut_out(outline: Array, shape: tuple[int, int]) -> Image:
    """Return alpha (H, W) of a polygon (N, 2) in texels, with antialiased edges."""
    fine = np.zeros((shape[0] * 8, shape[1] * 8), np.uint8)
    cv2.fillPoly(fine, [(outline * 8).astype(np.int32)], 255)
    return cv2.resize(fine, shape[::-1], interpolation=cv2.INTER_AREA)


def _side_windows(colour: Floats, car: Car, outline: Array) -> None:
    """Add glass below the roof line, divided by pillars, and door seams and handles below it."""
    height = colour.shape[0]
    sill = height - round((0.95 if car.outline is HATCHBACK else 1.25) * CAR_TEXELS_PER_M)
    cabin = outline[outline[:, 1] <= sill + 3]
    if car.outline is VAN:
        cabin = cabin[-2:]
        cabin = np.vstack([[cabin[0, 0] - 70, cabin[0, 1]], cabin])
    middle = cabin.mean(axis=0)
    base = np.array([[cabin[-1, 0], sill], [cabin[0, 0], sill]])
    glass = np.vstack([middle + (cabin - middle) * (0.88, 0.80), middle + (base - middle) * 0.9])
    hull = cv2.convexHull(glass.astype(np.float32)).astype(np.int32)
    pane = np.zeros(colour.shape[:2], np.uint8)
    cv2.fillConvexPoly(pane, hull, 255)
    colour[pane > 0] = (0.12, 0.15, 0.18)
    left, right = int(glass[:, 0].min()), int(glass[:, 0].max())
    for pillar in (left + (right - left) // 3, left + 2 * (right - left) // 3):
        colour[: sill + 2, pillar : pillar + 4] = rgb(car.colour) * 0.8
        colour[sill + 2 : height - 22, pillar + 2] *= 0.5
        colour[sill + 8 : sill + 11, pillar - 14 : pillar - 4] *= 0.5


def _wheel(colour: Floats, alpha: Image, centre: tuple[int, int]) -> None:
    radius = round(0.31 * CAR_TEXELS_PER_M)
    cv2.circle(colour, centre, radius + 3, (0.05, 0.05, 0.05), -1)
    cv2.circle(alpha, centre, radius, 255, -1, cv2.LINE_AA)
    cv2.circle(colour, centre, radius * 2 // 3, (0.55, 0.56, 0.58), -1)
    for turn in np.linspace(0, 2 * np.pi, 5, endpoint=False):
        tip = (np.array(centre) + 0.6 * radius * np.array([np.cos(turn), np.sin(turn)])).astype(int)
        cv2.line(colour, centre, tip.tolist(), (0.25, 0.25, 0.27), 2)


def build_tree(
    tree: Tree, light: Light, rng: np.random.Generator, leaves: bool = True
) -> list[Surface]:
    """Return a trunk, and a crown of leafy or bare cards, brighter towards the sun."""
    bark = materials.tinted(
        1 + 0.25 * materials.fractal((180, 24), rng, (1.5, 5)), (0.36, 0.28, 0.21)
    )
    foot = np.array([tree.x, tree.y, 0.1])
    surfaces = prism(foot, 0.14, tree.height - 0.3 * tree.radius, 6, bark, light)
    middle = np.array([tree.x, tree.y, tree.height])
    green = np.array([0.33, 0.43, 0.14]) * rng.uniform(0.88, 1.12, 3)
    clumps = [materials.foliage(rng, 128, green) for _ in range(2)]
    if not leaves:
        clumps = [materials.twigs(rng.spawn(1)[0], 128) for _ in range(2)]
    for k in range(18):
        direction = _sphere_point(k, 18)
        card = direction * (0.62 * tree.radius) * (1, 1, 1.15)
        facing = 0.5 + 0.5 * float(direction @ np.array(light.to_sun))
        shade = light.on(np.array([0, 0, 1.0]), 0.75 * facing**1.5, 0.35 + 0.55 * facing)
        colour, alpha = clumps[k % 2]
        across, down = _card_axes(direction, rng)
        size = tree.radius * rng.uniform(0.75, 0.95)
        corners = [middle + card + size * (i * across + j * down) for i, j in _SQUARE]
        surfaces.append(Surface.of(corners, Texture.of(colour * shade, alpha), two_sided=True))
    return surfaces


_SQUARE = ((-1, -1), (1, -1), (1, 1), (-1, 1))


def _sphere_point(k: int, count: int) -> Array:
    """Return point k of a Fibonacci lattice on the unit sphere."""
    z = 1 - 2 * (k + 0.5) / count
    turn = k * np.pi * (3 - np.sqrt(5))
    ring = np.sqrt(1 - z * z)
    return np.array([ring * np.cos(turn), ring * np.sin(turn), z])


def _card_axes(direction: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return two perpendicular unit vectors of a card that faces roughly outwards."""
    normal = direction + 0.6 * rng.standard_normal(3)
    normal /= np.linalg.norm(normal)
    across = np.cross(normal, rng.standard_normal(3))
    across /= np.linalg.norm(across)
    return across, np.cross(normal, across)


def prism(
    foot: Array, radius: float, height: float, sides: int, albedo: Floats, light: Light
) -> list[Surface]:
    """Return an upright column with flat sides."""
    turns = np.linspace(0, 2 * np.pi, sides + 1)
    ring = foot + radius * np.column_stack([np.cos(turns), np.sin(turns), np.zeros(sides + 1)])
    up, surfaces = np.array([0.0, 0.0, height]), []
    for a, b in pairwise(ring):
        normal = (a + b) / 2 - foot
        lit = albedo * light.on(normal / np.linalg.norm(normal))
        surfaces.append(Surface.of([a + up, b + up, b, a], Texture.of(lit)))
    return surfaces


def build_lamp(foot: Array, inward: Array, light: Light, rng: np.random.Generator) -> list[Surface]:
    """Return a lamp post whose arm reaches over the road along the unit vector `inward`."""
    iron = materials.plain(rng, (0.16, 0.20, 0.19), (256, 12))
    iron[40::60] *= 0.5
    head = foot + np.array([0.0, 0.0, 5.6]) + 1.1 * inward
    lantern = materials.plain(rng, (0.85, 0.80, 0.66), (20, 16))
    lantern[[0, 1, -1]] = 0.15
    return [
        *prism(foot, 0.075, 5.8, 6, iron, light),
        *prism(foot, 0.14, 0.9, 6, iron[:48], light),
        *prism(foot + np.array([0, 0, 5.72]) + 0.55 * inward, 0.57, 0.07, 4, iron[:12], light),
        *prism(head - np.array([0, 0, 0.12]), 0.2, 0.42, 6, lantern, light),
    ]


def build_sign(foot: Array, ahead: Array, kind: int, light: Light) -> list[Surface]:
    """Return a traffic sign on a pole, facing against the unit vector `ahead`. kind: 0, 1 or 2."""
    size = 96
    face, alpha = np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.uint8)
    if kind == 2:
        face[:], alpha[:] = (0.10, 0.28, 0.62), 255
        materials.text(face, "P", (0.95, 0.95, 0.95))
    else:
        cv2.circle(alpha, (48, 48), 46, 255, -1, cv2.LINE_AA)
        cv2.circle(face, (48, 48), 47, (0.72, 0.08, 0.07), -1)
        cv2.circle(face, (48, 48), 34, (0.93, 0.92, 0.90), -1)
        materials.text(face[28:68, 16:80], ("30", "50")[kind], (0.08, 0.08, 0.08))
    right = np.array([ahead[1], -ahead[0], 0.0])
    centre, down = foot + np.array([0, 0, 2.5]) - 0.06 * ahead, np.array([0, 0, -1.0])
    corners = [centre + 0.34 * (i * right + j * down) for i, j in _SQUARE]
    back = Texture.of(np.full((size, size, 3), 0.4, np.float32), np.ascontiguousarray(alpha))
    reverse = [corners[1], corners[0], corners[3], corners[2]]
    pole = np.full((64, 4, 3), 0.5, np.float32)
    return [
        *prism(foot, 0.035, 2.9, 5, pole, light),
        Surface.of(corners, Texture.of(face * light.on(-ahead), alpha)),
        Surface.of(reverse, back),
    ]
