//! coffer's benchmarks: criterion benches of the parts (`benches/`), and a load generator for whole members.
//!
//! | room | what it does |
//! |---|---|
//! | [`load`] | `coffer-bench load`: drives any etcd endpoint, open or closed loop |

pub mod load;
