"""Joints of people in videos: finders, tracking, and the files that metrics read."""
