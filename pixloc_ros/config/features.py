"""How the network sees an image: its weights, size and precision."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from pixloc_ros.config.section import Section


class FeaturesConfig(Section):
    """The network, and the size of the image that it receives."""

    weights: str = Field(
        default="compact_seed",
        description="Name of packaged network weights (compact_seed, fast, or open, which may be "
        "used commercially), or the path of a weights file or of an exported network (.onnx). It "
        "must be the network that the map was built with.",
    )
    backend: Literal["auto", "torch", "onnxruntime", "tensorrt"] = Field(
        default="auto",
        description="Library that runs the network. auto: onnxruntime for an exported network, "
        "torch for all other weights. tensorrt: TensorRT by way of onnxruntime, on a GPU. With "
        "onnxruntime and tensorrt, features.weights must name a file that `pixloc export` wrote.",
    )
    max_side_px: int = Field(
        default=0,
        ge=0,
        le=16384,
        description="Images with a longer side than this, in pixels, are reduced to it before the "
        "network sees them. Smaller is faster and converges from farther away, larger is more "
        "accurate. 0: the size that the map was built with.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Number format of the network on a CPU. auto: bfloat16, which is faster, if "
        "the CPU has instructions for it. A GPU always uses float16, and onnxruntime on a CPU "
        "float32.",
    )

    @field_validator("max_side_px")
    @classmethod
    def _check_side(cls, side_px: int) -> int:
        if 0 < side_px < 64:
            raise ValueError("0, or at least 64")
        return side_px
