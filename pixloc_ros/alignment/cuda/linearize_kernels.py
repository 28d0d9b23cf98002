"""Triton kernel of the normal equations: projection, sampling, weights and sums in one pass.

With `step_kernels` one iteration of all hypotheses is two launches and needs nothing from the
host: problems freeze by a flag in their state. Sums are in float32 and in a fixed order, so runs
repeat bit by bit.

Row-major arrays: T, best_T (K, 4, 4) are T_cam_local; state (K, 8) as named below; camera (24) as
`schedule.pack_camera` writes it; rows (H * W, C + 8) float16: unit feature, confidence, 7 unused;
reference (N, C) float16; sums (K, tiles, 8, 8): rows 0-5 Hessian, 6 gradient, 7 the scalars.
Importing needs triton; TRITON_INTERPRET=1 runs the same code on a CPU.
"""

# mypy: ignore-errors

import triton
import triton.language as tl

MIN_DEPTH_M = tl.constexpr(1e-3)
MAX_ROWS_PER_ROW = tl.constexpr(0.5)
CHANNELS = tl.constexpr(32)  # at a time: few threads share a point, as its geometry is done by each
ROW_PADDING = tl.constexpr(8)  # keeps rows aligned to 16 bytes with the confidence inside

# Kinds of lenses, as `schedule.lens_kind` tells them
BROWN_CONRADY = tl.constexpr(1)  # radial, rational, tangential
FISHEYE = tl.constexpr(2)
ATAN_TERMS = tl.constexpr(8)

# Columns of `state`
COST = tl.constexpr(0)
ITERATIONS = tl.constexpr(1)  # -1 before the initial pose itself has been evaluated
ACTIVE = tl.constexpr(2)
CONVERGED = tl.constexpr(3)
FAILED = tl.constexpr(4)
EXISTS = tl.constexpr(5)  # False: a place that no hypothesis fills
STATE = tl.constexpr(8)


@triton.jit
def _columns(column, v):
    """Six vectors (N,) as columns of (N, 8), the last two zero."""
    v012 = tl.where(column == 0, v[0][:, None], tl.where(column == 1, v[1][:, None], v[2][:, None]))
    v34 = tl.where(column == 3, v[3][:, None], tl.where(column == 4, v[4][:, None], 0.0))
    return tl.where(column < 3, v012, tl.where(column == 5, v[5][:, None], v34))


@triton.jit
def _through_transform(a, x, y, z, in_view):
    """A row a (3) of the derivative by the point as one by the twist: [a | p x a]."""
    return (
        tl.where(in_view, a[0], 0.0),
        tl.where(in_view, a[1], 0.0),
        tl.where(in_view, a[2], 0.0),
        tl.where(in_view, y * a[2] - z * a[1], 0.0),
        tl.where(in_view, z * a[0] - x * a[2], 0.0),
        tl.where(in_view, x * a[1] - y * a[0], 0.0),
    )


@triton.jit
def _distort(camera, u, v):
    """Rational and tangential distortion of (u, v), its symmetric Jacobian, squared radius."""
    k1, k2, p1, p2 = tl.load(camera), tl.load(camera + 1), tl.load(camera + 2), tl.load(camera + 3)
    k3, k4, k5 = tl.load(camera + 4), tl.load(camera + 5), tl.load(camera + 6)
    k6 = tl.load(camera + 7)
    r2 = u * u + v * v
    N = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    dN = k1 + r2 * (2 * k2 + r2 * 3 * k3)
    D = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    dD = k4 + r2 * (2 * k5 + r2 * 3 * k6)
    factor = N / D
    slope = 2 * (dN * D - N * dD) / (D * D)
    u_d = u * factor + 2 * p1 * u * v + p2 * (r2 + 2 * u * u)
    v_d = v * factor + 2 * p2 * u * v + p1 * (r2 + 2 * v * v)
    uu = factor + slope * u * u + 2 * p1 * v + 6 * p2 * u
    uv = slope * u * v + 2 * p1 * u + 2 * p2 * v
    vv = factor + slope * v * v + 2 * p2 * u + 6 * p1 * v
    return u_d, v_d, uu, uv, vv, r2


@triton.jit
def _atan(x):
    """The angle of a tangent x >= 0, to 1e-7: a quarter of the angle by its series, times four.

    A quarter is at most pi / 8, where eight terms suffice.
    """
    x = x / (1 + tl.sqrt(1 + x * x))
    x = x / (1 + tl.sqrt(1 + x * x))
    series = 0.0
    for term in tl.static_range(ATAN_TERMS):
        series = 1.0 / (2 * (ATAN_TERMS - term) - 1) - x * x * series
    return 4 * x * series


@triton.jit
def _distort_fisheye(camera, u, v):
    """Kannala-Brandt distortion of (u, v), its symmetric Jacobian, squared angle."""
    k1, k2, k3, k4 = tl.load(camera), tl.load(camera + 1), tl.load(camera + 2), tl.load(camera + 3)
    r2 = tl.maximum(u * u + v * v, 1e-12)
    r = tl.sqrt(r2)
    theta = _atan(r)
    t2 = theta * theta
    factor = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4)))) / r
    growth = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))
    slope = (growth / (1 + r2) - factor) / r2
    return u * factor, v * factor, factor + slope * u * u, slope * u * v, factor + slope * v * v, t2


@triton.jit
def _project(camera, x, y, z, LENS: tl.constexpr):
    """Pixels, visibility but for the image's edges, and the derivatives by the point, two rows."""
    fx, fy, cx, cy = tl.load(camera), tl.load(camera + 1), tl.load(camera + 2), tl.load(camera + 3)
    depth_inverse = 1.0 / tl.maximum(z, MIN_DEPTH_M)
    u = x * depth_inverse
    v = y * depth_inverse
    visible = z > MIN_DEPTH_M
    u_d, v_d, uu, uv, vv = u, v, 1.0, 0.0, 1.0
    if LENS == BROWN_CONRADY:
        u_d, v_d, uu, uv, vv, radius2 = _distort(camera + 8, u, v)
        visible = visible & (radius2 < tl.load(camera + 6))
    if LENS == FISHEYE:
        u_d, v_d, uu, uv, vv, radius2 = _distort_fisheye(camera + 8, u, v)
        visible = visible & (radius2 < tl.load(camera + 6))
    px = fx * u_d + cx
    py = fy * v_d + cy
    fx_z = fx * depth_inverse
    fy_z = fy * depth_inverse
    x_row = (fx_z * uu, fx_z * uv, -fx_z * (uu * u + uv * v))
    y_row = (fy_z * uv, fy_z * vv, -fy_z * (uv * u + vv * v))
    return px, py, visible, x_row, y_row


@triton.jit
def _cross(a, x, y, z):
    """The vector a (3) times (x, y, z)."""
    return a[1] * z - a[2] * y, a[2] * x - a[0] * z, a[0] * y - a[1] * x


@triton.jit
def _project_rolling(camera, x, y, z, LENS: tl.constexpr):
    """As _project, each point from where the camera is when the row is read that shows it."""
    height = tl.load(camera + 5) + 1
    stamp_row = tl.load(camera + 16)
    step_x, step_y, step_z = tl.load(camera + 17), tl.load(camera + 18), tl.load(camera + 19)
    turn = (tl.load(camera + 20), tl.load(camera + 21), tl.load(camera + 22))
    _, row, _, _, _ = _project(camera, x, y, z, LENS)
    row = tl.minimum(tl.maximum(row, -height), 2 * height)
    s = row - stamp_row
    vx, vy, vz = _cross(turn, x, y, z)
    vx, vy, vz = vx + step_x, vy + step_y, vz + step_z
    bx, by, bz = _cross(turn, vx, vy, vz)
    half = 0.5 * s
    px, py, visible, jx, jy = _project(
        camera,
        x + s * (half * bx - vx),
        y + s * (half * by - vy),
        z + s * (half * bz - vz),
        LENS,
    )
    vx, vy, vz = s * bx - vx, s * by - vy, s * bz - vz
    motion_x = jx[0] * vx + jx[1] * vy + jx[2] * vz
    motion_y = jy[0] * vx + jy[1] * vy + jy[2] * vz
    scale = 1.0 / (1.0 - tl.minimum(motion_y, MAX_ROWS_PER_ROW))
    gain_x, gain_y = motion_x * scale, motion_y * scale
    px, py = px + gain_x * (py - row), py + gain_y * (py - row)
    x_row = (jx[0] + gain_x * jy[0], jx[1] + gain_x * jy[1], jx[2] + gain_x * jy[2])
    y_row = (jy[0] + gain_y * jy[0], jy[1] + gain_y * jy[1], jy[2] + gain_y * jy[2])
    return px, py, visible, x_row, y_row


@triton.jit
def _products(rows, reference, px, py, n, in_view, width, height, C: tl.constexpr):
    """Products of residual r and feature gradients [dF/dx, dF/dy], and the query's confidence."""
    ROW: tl.constexpr = C + ROW_PADDING
    base_x = tl.minimum(tl.floor(px), width - 2)
    base_y = tl.minimum(tl.floor(py), height - 2)
    x = tl.minimum(px - base_x, 1.0)
    y = tl.minimum(py - base_y, 1.0)
    corner = rows + (base_y.to(tl.int32) * width + base_x.to(tl.int32)) * ROW
    below = corner + width * ROW
    mask = in_view[:, None]
    rr, xr, yr, xx, xy, yy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for first in tl.static_range(0, C, CHANNELS):
        c = (first + tl.arange(0, CHANNELS))[None, :]
        f00 = tl.load(corner[:, None] + c, mask=mask, other=0.0).to(tl.float32)
        f10 = tl.load(corner[:, None] + (ROW + c), mask=mask, other=0.0).to(tl.float32)
        f01 = tl.load(below[:, None] + c, mask=mask, other=0.0).to(tl.float32)
        f11 = tl.load(below[:, None] + (ROW + c), mask=mask, other=0.0).to(tl.float32)
        target = tl.load(reference + n[:, None] * C + c, mask=mask, other=0.0).to(tl.float32)
        top_slope = f10 - f00
        bottom_slope = f11 - f01
        top = f00 + x[:, None] * top_slope
        gy = f01 + x[:, None] * bottom_slope - top
        gx = top_slope + y[:, None] * (bottom_slope - top_slope)
        r = top + y[:, None] * gy - target
        rr += tl.sum(r * r, 1)
        xr += tl.sum(gx * r, 1)
        yr += tl.sum(gy * r, 1)
        xx += tl.sum(gx * gx, 1)
        xy += tl.sum(gx * gy, 1)
        yy += tl.sum(gy * gy, 1)
    q00 = tl.load(corner + C, mask=in_view, other=0.0).to(tl.float32)
    q10 = tl.load(corner + (ROW + C), mask=in_view, other=0.0).to(tl.float32)
    q01 = tl.load(below + C, mask=in_view, other=0.0).to(tl.float32)
    q11 = tl.load(below + (ROW + C), mask=in_view, other=0.0).to(tl.float32)
    q_top = q00 + x * (q10 - q00)
    confidence = q_top + y * (q01 + x * (q11 - q01) - q_top)
    return rr, xr, yr, xx, xy, yy, confidence


@triton.jit
def linearize(
    T, state, camera, count, points, confidence, reference, rows, width, height,
    pixels_before, pixels, sums, squared_out, gradients_out, capacity, tiles,
    robust_scale, cost_unit,
    C: tl.constexpr, BLOCK: tl.constexpr, LENS: tl.constexpr, ROLLING: tl.constexpr,
    EMIT: tl.constexpr,
):  # fmt: skip
    """Sums of the normal equations over one tile of points of one hypothesis (eq. 1, 2, 4, 6).

    Grid (K, tiles): neighbouring programs share their points, so references and map rows come
    from a near cache. How far the pixels moved since the last call is summed as well.
    """
    k, tile = tl.program_id(0), tl.program_id(1)
    points_count = tl.load(count)
    if (tl.load(state + k * STATE + ACTIVE) == 0) | (tile * BLOCK >= points_count):
        return
    n = tile * BLOCK + tl.arange(0, BLOCK)
    real = n < points_count
    X = tl.load(points + 3 * n, mask=real, other=0.0)
    Y = tl.load(points + 3 * n + 1, mask=real, other=0.0)
    Z = tl.load(points + 3 * n + 2, mask=real, other=0.0)
    P = T + 16 * k
    x = tl.load(P) * X + tl.load(P + 1) * Y + tl.load(P + 2) * Z + tl.load(P + 3)
    y = tl.load(P + 4) * X + tl.load(P + 5) * Y + tl.load(P + 6) * Z + tl.load(P + 7)
    z = tl.load(P + 8) * X + tl.load(P + 9) * Y + tl.load(P + 10) * Z + tl.load(P + 11)
    if ROLLING:
        px, py, visible, jx, jy = _project_rolling(camera, x, y, z, LENS)
    else:
        px, py, visible, jx, jy = _project(camera, x, y, z, LENS)
    right, bottom = tl.load(camera + 4), tl.load(camera + 5)
    inside = (px >= 0) & (px <= right) & (py >= 0) & (py <= bottom)
    in_view = real & visible & inside  # False for points that are not finite
    px = tl.where(in_view, px, 0.0)
    py = tl.where(in_view, py, 0.0)

    rr, xr, yr, xx, xy, yy, confidence_query = _products(
        rows, reference, px, py, n, in_view, width, height, C
    )
    confidence_map = tl.load(confidence + n, mask=real, other=0.0)
    weight = confidence_map * confidence_query / (1.0 + rr / robust_scale)
    weight = tl.where(in_view, weight, 0.0)
    cost = tl.minimum(tl.log(1.0 + rr / robust_scale) * cost_unit, 1.0)
    cost = confidence_map * tl.where(in_view, cost, 1.0)

    # Written to another place than is read: the threads that share a point are not in step.
    place = 2 * (k * capacity + n)
    dx = px - tl.load(pixels_before + place, mask=real, other=float("nan"))
    dy = py - tl.load(pixels_before + place + 1, mask=real, other=float("nan"))
    both = in_view & (dx == dx)
    motion = tl.where(both, tl.sqrt(dx * dx + dy * dy), 0.0)
    tl.store(pixels + place, tl.where(in_view, px, float("nan")), mask=real)
    tl.store(pixels + place + 1, tl.where(in_view, py, float("nan")), mask=real)

    column = tl.arange(0, 8)[None, :]
    jx = _through_transform(jx, x, y, z, in_view)
    jy = _through_transform(jy, x, y, z, in_view)
    Jx = _columns(column, jx)
    Jy = _columns(column, jy)
    wxx, wxy, wyy = (weight * xx)[:, None], (weight * xy)[:, None], (weight * yy)[:, None]
    gradient = (weight * xr)[:, None] * Jx + (weight * yr)[:, None] * Jy
    scalars = (
        cost,
        in_view.to(tl.float32),
        motion,
        both.to(tl.float32),
        confidence_map,
        0.0 * cost,
    )
    total = sums + 64 * (k * tiles + tile) + tl.arange(0, 8)
    for i in tl.static_range(6):
        a, b = jx[i][:, None], jy[i][:, None]
        row = (wxx * a + wxy * b) * Jx + (wxy * a + wyy * b) * Jy
        tl.store(total + 8 * i, tl.sum(row, 0))
    tl.store(total + 48, tl.sum(gradient, 0))
    tl.store(total + 56, tl.sum(_columns(column, scalars), 0))
    if EMIT:
        at = k * capacity + n
        tl.store(squared_out + at, tl.where(in_view, rr, float("nan")), mask=real)
        tl.store(gradients_out + 8 * at[:, None] + column, gradient, mask=real[:, None])
