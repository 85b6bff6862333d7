"""Offline inference over millions of images: from files, Parquet and tars to Parquet, going on after any stop."""
