"""Ops of the ranking model, each with a plain reference, a backward and a device dispatch."""
