"""Deep features: the network, its weights, and the pyramid of maps it makes of an image."""
