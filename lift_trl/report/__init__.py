"""One report of an evaluation from the folders of its systems, judges and figures."""
