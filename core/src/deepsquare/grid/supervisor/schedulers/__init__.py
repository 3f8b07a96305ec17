"""Batch schedulers behind one interface."""
