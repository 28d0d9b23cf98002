"""Training of networks through the alignment that runs them."""
