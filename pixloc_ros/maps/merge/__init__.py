"""Several maps as one: what they have in common is joined."""
