//! The watchers of one serving thread.
