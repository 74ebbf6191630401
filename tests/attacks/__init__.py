"""Trajectories of agents that are led astray by what their tools tell them, each with its benign twin."""
