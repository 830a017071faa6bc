"""Narrower networks from trained ones: which channels to take, the rewrite, and its proof.

`python -m prune --model runs/a/best --out runs/a/pruned --ratio 0.3 --multiple 8`
"""
