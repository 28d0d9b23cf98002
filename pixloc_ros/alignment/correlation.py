"""The products of residuals and feature gradients without their channels, for many poses at once.

Within a cell of the map a feature is F = a + b x + c y + d xy. So all that the normal equations
need follows from the products of a, b, c and d of each cell, and from those of the references with
each pixel. Both are computed once; at every pose a point then costs some twenty numbers instead of
four features. It pays on coarse maps, where the pixels are few and the poses many.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pixloc_ros.features.sampling import FeatureLevel


@dataclass(frozen=True, slots=True)
class Correlation:
    """Products of a level's cells (P, 14) with themselves, and of references with pixels (N, P).

    Columns of cells: aa ab ac ad bb bc bd cc cd dd, and the confidence's own a b c d.
    """

    level: FeatureLevel
    cells: Tensor
    references: Tensor
    squared_references: Tensor  # (N,)

    @classmethod
    def of(cls, level: FeatureLevel, references: Tensor) -> Correlation:
        """Correlate a level of one image with reference features (N, C)."""
        rows = level.rows.view(level.height, level.width, -1)
        right, below = rows.roll(-1, 1), rows.roll(-1, 0)  # wrong behind the border, and unused
        corners = (rows, right - rows, below - rows, below.roll(-1, 1) - right - below + rows)
        cell = torch.stack(corners, -2).flatten(0, 1)  # (P, 4, C + 1)
        features, (i, j) = cell[..., :-1], torch.triu_indices(4, 4)
        products = (features @ features.mT)[:, i, j]
        cells = torch.cat([products, cell[..., -1]], -1)
        correlation = references @ level.rows[:, :-1].mT
        return cls(level, cells, correlation, references.square().sum(-1))

    def products(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Gram matrix (K, N, 3, 3) of residual and feature gradients [r, dF/dx, dF/dy].

        Also the query's confidence (K, N). pixels: (K, N, 2) of the level.
        """
        index, fraction = self.level.index(pixels, 2)
        (x, y), first = fraction.unbind(-1), index[..., 0]
        cells = self.cells[first.flatten()].mT.contiguous().view(-1, *first.shape)
        aa, ab, ac, ad, bb, bc, bd, cc, cd, dd, *confidence = cells
        # F = p + q y, with p = a + b x and q = c + d x = dF/dy; and dF/dx = b + d y.
        pp, pq = aa + x * (2 * ab + x * bb), ac + x * (ad + bc + x * bd)
        qq, dq = cc + x * (2 * cd + x * dd), cd + x * dd
        bp, bq, dp = ab + x * bb, bc + x * bd, ad + x * bd
        FF, Fx, Fy = pp + y * (2 * pq + y * qq), bp + y * (bq + dp + y * dq), pq + y * qq
        xx, xy = bb + y * (2 * bd + y * dd), bq + y * dq
        R, Rx, Ry = self._with_references(index, x, y)
        rr = (FF - 2 * R + self.squared_references).clamp(min=0)
        rx, ry = Fx - Rx, Fy - Ry
        gram = torch.stack([rr, rx, ry, rx, xx, xy, ry, xy, qq], -1).unflatten(-1, (3, 3))
        a, b, c, d = confidence
        return gram, a + x * b + y * (c + x * d)

    def _with_references(self, index: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """Products (K, N) of the references with F, dF/dx and dF/dy."""
        points, cells = self.references.shape
        start = torch.arange(points, device=index.device)[:, None] * cells
        top_left, top_right, left, right = self.references.take(index + start).unbind(-1)
        b, c, d = top_right - top_left, left - top_left, right - top_right - left + top_left
        return top_left + x * b + y * (c + x * d), b + y * d, c + x * d
