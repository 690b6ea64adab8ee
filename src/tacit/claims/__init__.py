"""Claims of the papers, as experiments that anyone can run on a laptop."""
