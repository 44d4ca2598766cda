//! member.
