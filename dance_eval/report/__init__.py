"""From metrics.json and clips to what is read: tables in the paper's layout, and one HTML page."""
