"""`pixloc demo`: everything end to end on a generated street."""
