import lime_edge  # noqa: F401  (disables the telemetry of onnxruntime before a test imports it)
