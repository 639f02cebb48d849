"""Objectives on speech."""
