"""What makes and checks the pages under docs/: running their blocks, writing their generated parts."""
