"""The alignment loop as Triton kernels; README.md says which function is which of torch's."""
