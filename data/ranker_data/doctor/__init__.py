"""What is wrong, or odd, with a prepared data set: files, values, times, leakage, duplicates."""
