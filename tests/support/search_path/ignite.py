"""Stands in for pytorch-ignite in the processes that tests start: there it is not installed.

Of users, only those who run a bundle by MONAI have it. Wherever it is installed, MONAI imports it,
which costs every job of the workflow more than a second.
"""

raise ImportError("not installed for this process; see tests/conftest.py")
