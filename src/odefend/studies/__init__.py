"""Studies: one file per experiment section, and one for its report."""
