"""One file or folder per outside thing; siblings never import each other."""
