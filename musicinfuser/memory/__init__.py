"""Less memory on the device: recomputing, offloading and streaming of blocks."""
