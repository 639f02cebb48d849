"""Probes of any encoder of this project or converted from another: what its frozen layers know."""
