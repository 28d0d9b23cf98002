"""Deep features: the network, its weights, and the feature pyramid that it computes of an image."""
