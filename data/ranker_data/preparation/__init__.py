"""From raw events and samples to an event log: one definition in SQL, and its files."""
