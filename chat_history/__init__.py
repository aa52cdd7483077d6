"""Keep AI chat history in a JSON file, SQLite or Postgres, and hand it to any agent framework."""
