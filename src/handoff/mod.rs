//! Passing work on: the handoff document, its envelope and the typed handoff. Knows no disk and no process.
