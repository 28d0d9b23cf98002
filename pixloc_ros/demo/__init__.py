"""`pixloc demo`: run everything, end to end, on a generated street."""
