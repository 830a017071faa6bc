"""The report: run, pruned and exported folders in, one self-contained HTML page out.

`from train.report_page.page import build_page` makes the page; `python -m train.report` is the command.
"""
