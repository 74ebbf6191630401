"""Rubrics as data, and how a transcript is judged by them."""

from langchain_rain.rubrics.rubric import Criterion, Example, Rubric

__all__ = ["Criterion", "Example", "Rubric"]
