"""The test bed: a synthetic world of dancers and music, and a small Mochi that learned in it."""
