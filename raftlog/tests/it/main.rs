//! The agreement's tests. One binary; each module is a room or a promise.

mod driver;
mod lease;
mod members;
mod node;
mod pages;
mod recovery;
mod solo;
mod support;
