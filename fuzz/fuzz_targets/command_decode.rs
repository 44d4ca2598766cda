//! Any bytes as a replicated command: decoding never panics, what decodes applies and breaks no rule of the store.
#![no_main]

use coffer_engine::command::samples::fuzz_command_decode;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fuzz_command_decode(bytes);
    #[cfg(planted)]
    planted(bytes);
});

/// A panic that only a fuzzer which gets deep into the decoder finds: a txn within a txn whose comparison is of a
/// lease, and which deletes.
#[cfg(planted)]
fn planted(bytes: &[u8]) {
    use coffer_engine::command::{Command, CompareTarget, Stamped, TxnOp};
    let Ok(Stamped { command: Command::Txn(outer), .. }) = Stamped::decode(bytes) else { return };
    for op in outer.success.iter().chain(&outer.failure) {
        let TxnOp::Txn(inner) = op else { continue };
        let compares_lease =
            inner.compares.iter().any(|compare| matches!(compare.target, CompareTarget::Lease(0)));
        let deletes = inner.success.iter().any(|op| matches!(op, TxnOp::DeleteRange(_)));
        assert!(!(compares_lease && deletes), "planted panic");
    }
}
