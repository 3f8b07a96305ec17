"""Snakemake executor for the DeepSquare grid."""
