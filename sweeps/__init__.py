"""Many runs of `train.py` and `evaluate.py` from one file, and the table over them."""
