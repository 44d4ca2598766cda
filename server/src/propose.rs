//! propose.
