"""The search: pure, deterministic, and ignorant of models, threads, clocks and LangChain."""
