"""Backbones, heads, students and the files that hold trained models.

`from models.student import build_student` makes a network, `from models.artifact import load_artifact` reads one back.
"""
