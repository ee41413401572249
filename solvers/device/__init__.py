"""Attempts that are queued on the device, or compiled into programs."""
