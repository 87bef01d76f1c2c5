"""The parts of `side_by_side.py`: rows and cases, the script of each system, what compares and what shows the figures.

`run_*.py` are run by the interpreter of their system's own environment, and `stub.py` by all of them: they import
nothing of this project, `run_ours.py` apart.
"""
