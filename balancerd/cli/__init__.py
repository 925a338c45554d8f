"""balancerctl: one module for each group of verbs."""

from balancerd.cli.root import main as main
