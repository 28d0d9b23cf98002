"""Every boundary with damaged and hostile input: nothing but a refusal with a reason comes out.

`test_fuzz.py` runs a few cases of each target with every `make test`; `make fuzz MINUTES=60` runs
many (`__main__.py`). Cases are made by hypothesis: it needs no compiler and runs where the tests
do, repeats a case from its seed and shrinks it to the edit that matters. Coverage-guided fuzzers
(atheris) see Python's branches only, and most parsers behind these boundaries are of C.
"""
