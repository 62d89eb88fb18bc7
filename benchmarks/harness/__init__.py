"""What the benchmarks share: paired rounds, latencies, result files, and the tables and plots of the documents."""
