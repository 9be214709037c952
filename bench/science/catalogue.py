"""All problems by name: those of the table, and those with published errors."""

from bench.science.problems import PROBLEMS
from bench.science.published import PUBLISHED_PROBLEMS

ALL = PROBLEMS | PUBLISHED_PROBLEMS
