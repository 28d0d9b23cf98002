"""The public benchmarks of visual localization: how each is read, run and scored."""
