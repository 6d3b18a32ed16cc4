"""A page to play with: ``python -m musicinfuser.app`` (needs the extra ``demo``)."""
