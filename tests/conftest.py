"""One thread of torch for each process of the tests, those that they start included.

Two test processes of two threads each on two cores wait for each other more than they compute.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
