"""What light, weather, lenses and sensors do to images (K, 3, H, W) of range 0..1."""
