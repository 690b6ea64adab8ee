"""Classes from few labels and many samples without."""
