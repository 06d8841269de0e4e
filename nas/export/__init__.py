"""Networks for other programs: ONNX and torch files that were run before they were written, and the card beside them."""
