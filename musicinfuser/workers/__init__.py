"""Programs that run in environments of their own, see `musicinfuser.external_worker`.

They import nothing of this project but `musicinfuser.workers`, and keep to what Python 3.9 knows.
"""
