"""The networks of the paper: the adapted Mochi, its adapters, and the frozen encoders."""
