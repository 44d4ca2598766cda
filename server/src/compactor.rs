//! compactor.
