"""Trained models as files for phones and servers: ONNX, int8 ONNX, 8-bit storage, and the way back into Python.

`from models.deploy.graph import export_graph` makes a graph, `from models.deploy.loading import load_model` reads any
of the files back.
"""
