"""Build a map from a COLMAP (or hloc) reconstruction.

    python examples/build_a_map_from_colmap.py sparse/0 images my_map
    python examples/build_a_map_from_colmap.py sparse/0 images my_map --datum 48.137,11.575,519,30

A COLMAP model has no metric scale and no position on Earth. --positions names a file with positions
of some of its images, as `name latitude longitude altitude` or as poses in metres.
"""

from __future__ import annotations

import argparse

from pixloc_ros import BuildOptions, ColmapSource, Datum, Positions, build_map


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder with cameras, images and points3D, .bin or .txt")
    parser.add_argument("images", help="folder that the model's image names are relative to")
    parser.add_argument("output", help="map folder to write")
    parser.add_argument("--positions", help="file with positions of the model's images")
    parser.add_argument("--datum", help="LAT,LON,ALT,YAW of the map's origin, for GNSS")
    arguments = parser.parse_args()

    # Other sources are PosedImagesSource, LidarSource, MeshSource and DepthImagesSource.
    source = ColmapSource(
        model_dir=arguments.model,
        images=arguments.images,
        positions=Positions(arguments.positions) if arguments.positions else None,
    )
    options = BuildOptions(datum=Datum.parse(arguments.datum) if arguments.datum else None)

    # An interrupted build continues when you call it again. `report` receives a line on how well
    # the positions fit; `progress` can wrap the images in a progress bar.
    map_ = build_map(source, arguments.output, options, report=print)
    print(f"{arguments.output}: {len(map_.keyframe_names)} keyframes, {map_.point_count} points")


if __name__ == "__main__":
    main()
