"""The runtimes of networks: torch and ONNX, each imported when first used."""
