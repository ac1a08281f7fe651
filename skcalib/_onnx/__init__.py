"""ONNX files: reading, running, walking and differentiating them."""
