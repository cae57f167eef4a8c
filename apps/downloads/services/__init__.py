"""Writes and rules of downloads: claims, jobs, metadata."""
