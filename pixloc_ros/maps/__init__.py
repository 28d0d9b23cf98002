"""Maps: built from COLMAP models, kept as folders of safetensors, seen from a prior pose."""
