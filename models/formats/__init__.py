"""Trained models as files for phones and servers: ONNX, int8 ONNX, 8-bit storage, and the way back into Python.

`models.formats.onnx_graph.export_graph` makes a graph, `models.formats.loading.load_model` reads any of the files back.
"""
