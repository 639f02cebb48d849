"""Objectives on vision."""
