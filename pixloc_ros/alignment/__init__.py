"""Direct alignment of deep features by Levenberg-Marquardt (PixLoc, CVPR 2021, section 3.1)."""
