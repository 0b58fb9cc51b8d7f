//! One committer a store: its lock, its socket, and the operations that go over it.
