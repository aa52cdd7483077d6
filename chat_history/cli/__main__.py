"""`python -m chat_history.cli`."""

from . import app

app()
