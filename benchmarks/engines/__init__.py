"""The engines that the speed benchmarks compare: the plain graph, ours, and other engines in worker processes."""
