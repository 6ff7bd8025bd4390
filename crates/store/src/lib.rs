//! What Sternpost remembers: one schema, SQLite now.
