"""Comparisons on the user's own data: methods, budgets and, later, backbones."""
