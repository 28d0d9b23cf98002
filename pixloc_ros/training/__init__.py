"""Train networks through the same alignment that uses them."""
