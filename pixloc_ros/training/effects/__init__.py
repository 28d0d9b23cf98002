"""Effects of light, weather, lenses and sensors on images (K, 3, H, W) in 0..1."""
