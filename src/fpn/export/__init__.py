"""A detector as a file that other runtimes take, with proof that it finds the same; and such a file as a detector."""
