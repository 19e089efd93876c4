"""Where a sweep is stored: the home, its folders, and a bucket."""
