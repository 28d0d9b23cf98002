"""Triton kernels that judge and move the hypotheses (`step`) and prune them (`best_distinct`).

The arrays are those of `linearize_kernels`.
"""

# mypy: ignore-errors

import triton
import triton.language as tl

from pixloc_ros.alignment.cuda.linearize_kernels import (
    ACTIVE,
    CONVERGED,
    COST,
    EXISTS,
    FAILED,
    ITERATIONS,
    STATE,
)

TINY = tl.constexpr(1.1754944e-38)
HUGE = tl.constexpr(3e38)  # costs of failed problems: after all others, before absent ones


@triton.jit
def _total(sums, tiles, CHUNK: tl.constexpr):
    row = tl.arange(0, 8)
    place = sums + 8 * row[None, :, None] + row[None, None, :]
    total = tl.zeros([8, 8], tl.float32)
    for first in range(0, tiles, CHUNK):
        tile = first + tl.arange(0, CHUNK)[:, None, None]
        total += tl.sum(tl.load(place + 64 * tile, mask=tile < tiles, other=0.0), 0)
    return total


@triton.jit
def _pick(vector, index, i: tl.constexpr):
    return tl.sum(tl.where(index == i, vector, 0.0), 0)


@triton.jit
def _damped_step(total, damping, floor):
    """Minus (H + D)^-1 g as (8,), zero where the system is not positive definite (eq. 4-5).

    Elimination by columns turns H into the identity and the row of g into g' H^-1; the pivots are
    the squares of Cholesky's.
    """
    index = tl.arange(0, 8)
    r, c = index[:, None], index[None, :]
    relative = tl.load(damping + index)[None, :]
    M = total + tl.where((r == c) & (c < 6), relative * total + floor, 0.0)
    smallest = HUGE
    for j in tl.static_range(6):
        row = tl.sum(tl.where(r == j, M, 0.0), 0)
        pivot = _pick(row, index, j)
        scaled = tl.sum(tl.where(c == j, M, 0.0), 1) / pivot
        M = tl.where(c == j, scaled[:, None], M - scaled[:, None] * row[None, :])
        smallest = tl.where(pivot > 0, smallest, -1.0)
    step = tl.where(index < 6, -tl.sum(tl.where(r == 6, M, 0.0), 0), 0.0)
    finite = tl.sum((step - step != 0).to(tl.int32), 0) == 0
    return tl.where(finite & (smallest > 0), step, 0.0)


@triton.jit
def _bound(step, max_step_m, max_step_rad):
    index = tl.arange(0, 8)
    length = tl.sqrt(tl.sum(tl.where(index < 3, step * step, 0.0), 0)) / max_step_m
    angle = tl.sqrt(tl.sum(tl.where(index < 3, 0.0, step * step), 0)) / max_step_rad
    return step / tl.maximum(tl.maximum(length, angle), 1.0)


@triton.jit
def _exp(step):
    """Uncoupled exponential (so3_exp(w), v) of a twist (8,) as (4, 4)."""
    index = tl.arange(0, 8)
    w0, w1, w2 = _pick(step, index, 3), _pick(step, index, 4), _pick(step, index, 5)
    angle = tl.sqrt(w0 * w0 + w1 * w1 + w2 * w2)
    safe = tl.maximum(angle, 1e-7)
    a = tl.where(angle < 1e-7, 1.0, tl.sin(safe) / safe)
    half = tl.sin(0.5 * safe) / (0.5 * safe)
    b = tl.where(angle < 1e-7, 0.0, 0.5 * half * half)
    i = tl.arange(0, 4)
    r, c = i[:, None], i[None, :]
    w_r = tl.where(r == 0, w0, tl.where(r == 1, w1, tl.where(r == 2, w2, 0.0)))
    w_c = tl.where(c == 0, w0, tl.where(c == 1, w1, tl.where(c == 2, w2, 0.0)))
    # [w]x holds +w_i or -w_i of the third index i = 3 - r - c; cyclic order gives the sign.
    third = 3 - r - c
    value = tl.where(third == 0, w0, tl.where(third == 1, w1, w2))
    skew = tl.where((c - r == 1) | (c - r == -2), -value, value)
    skew = tl.where((r == c) | (r == 3) | (c == 3), 0.0, skew)
    eye = tl.where(r == c, tl.where(r < 3, 1.0 - b * angle * angle, 1.0), 0.0)
    v = tl.where(r == 0, _pick(step, index, 0), tl.where(r == 1, _pick(step, index, 1), 0.0))
    v = tl.where(r == 2, _pick(step, index, 2), v)
    return eye + a * skew + b * w_r * w_c + tl.where((c == 3) & (r < 3), v, 0.0)


@triton.jit
def step(
    T, best_T, state, sums, count, damping, tiles, floor, max_step_m, max_step_rad,
    min_points, stop_motion_px, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Judge the iterate of one hypothesis, keep the best, and move on (eq. 5). Grid (K,).

    To be launched with one warp: it reads and then writes the same memory without a barrier.
    """
    k = tl.program_id(0)
    own = state + STATE * k
    if tl.load(own + ACTIVE) == 0:
        return
    total = _total(sums + 64 * k * tiles, tl.cdiv(tl.load(count), BLOCK), CHUNK)
    index = tl.arange(0, 8)
    r = index[:, None]
    scalars = tl.sum(tl.where(r == 7, total, 0.0), 0)
    broken = tl.sum(tl.sum(((total - total != 0) & (r < 7)).to(tl.int32), 0), 0) > 0
    failed = broken | (_pick(scalars, index, 1) < min_points)
    cost = _pick(scalars, index, 0) / tl.maximum(_pick(scalars, index, 4), TINY)
    cost = tl.where(failed, float("inf"), cost)
    motion_px = _pick(scalars, index, 2) / tl.maximum(_pick(scalars, index, 3), 1.0)

    iteration = tl.load(own + ITERATIONS) + 1
    first = iteration == 0
    converged = (motion_px < stop_motion_px) & (iteration > 0) & (failed == 0)
    better = first | (cost < tl.load(own + COST))
    i = tl.arange(0, 4)
    place = 16 * k + 4 * i[:, None] + i[None, :]
    pose = tl.load(T + place)
    tl.store(best_T + place, pose, mask=better)
    tl.store(own + COST, cost, mask=better)
    tl.store(own + ITERATIONS, iteration)
    tl.store(own + FAILED, failed.to(tl.float32), mask=first)
    tl.store(own + CONVERGED, converged.to(tl.float32))
    going = (failed == 0) & (converged == 0)
    tl.store(own + ACTIVE, going.to(tl.float32))

    update = _exp(_bound(_damped_step(total, damping, floor), max_step_m, max_step_rad))
    moved = tl.sum(update[:, :, None] * pose[None, :, :], 1)
    tl.store(T + place, moved, mask=going)


@triton.jit
def best_distinct(
    T,
    state,
    T_next,
    state_next,
    result,
    count,
    merge_m2,
    merge_chord2,
    min_agreement_share,
    LANES: tl.constexpr,
    KEEP: tl.constexpr,
):
    """The best distinct poses by cost become the initial poses of what follows. One program.

    T: (count, 4, 4) best iterates. result: (KEEP, 24) their states and poses. Two poses are one if
    both their camera centres and their rotations (squared Frobenius distance) are within limits.
    Poses whose 1 - cost is below a share of the best one's are given up.
    """
    k = tl.arange(0, LANES)
    own = k < count
    cost = tl.minimum(tl.load(state + STATE * k + COST, mask=own, other=0.0), HUGE)
    exists = tl.load(state + STATE * k + EXISTS, mask=own, other=0.0) != 0
    key = tl.where(exists, cost, float("inf"))
    least = tl.min(key, 0)
    highest = tl.maximum(1 - min_agreement_share * (1 - least), least)  # where all have failed
    given_up = (key > highest) & (min_agreement_share > 0)
    key = tl.where(given_up, float("inf"), key)
    cell = tl.arange(0, 16)
    column = tl.arange(0, 8)
    for i in range(KEEP):
        best = tl.argmin(key, 0)
        found = (tl.min(key, 0) <= HUGE).to(tl.float32)
        chord2 = tl.zeros([LANES], tl.float32)
        apart2 = tl.zeros([LANES], tl.float32)
        for a in tl.static_range(3):  # column a of R gives component a of the centre -R't
            here, there = tl.zeros([LANES], tl.float32), 0.0
            for b in tl.static_range(3):
                R = tl.load(T + 16 * k + 4 * b + a, mask=own, other=0.0)
                R_best = tl.load(T + 16 * best + 4 * b + a)
                here -= R * tl.load(T + 16 * k + 4 * b + 3, mask=own, other=0.0)
                there -= R_best * tl.load(T + 16 * best + 4 * b + 3)
                chord2 += (R - R_best) * (R - R_best)
            apart2 += (here - there) * (here - there)
        same = ((apart2 < merge_m2) & (chord2 < merge_chord2)) | (k == best)
        key = tl.where(same, float("inf"), key)

        pose = tl.load(T + 16 * best + cell)
        tl.store(T_next + 16 * i + cell, pose)
        tl.store(result + 24 * i + 8 + cell, pose)
        ended = tl.load(state + STATE * best + column)
        tl.store(result + 24 * i + column, tl.where(column == EXISTS, found, ended))
        fresh = tl.where((column == ACTIVE) | (column == EXISTS), found, 0.0)
        fresh = tl.where(column == COST, float("inf"), fresh)
        tl.store(state_next + STATE * i + column, tl.where(column == ITERATIONS, -1.0, fresh))
