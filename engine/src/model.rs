//! The whole store in memory, slow and obvious.
