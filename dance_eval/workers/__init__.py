"""Programs that run in environments of their own, see `dance_eval.external_worker`.

They import nothing of this project but `dance_eval.workers`, and keep to what Python 3.9 knows.
"""
