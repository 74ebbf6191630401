"""RAIN for LangChain."""
