//! What every device test shares.
//!
//! - `EPLB_ALLOW_NO_ADAPTER=1`: where no adapter is found the tests say so and pass. Without it they fail:
//!   a suite that passes because it did nothing tells nothing.

/// Whether the absence of an adapter is allowed.
pub fn may_lack_adapter() -> bool {
    std::env::var("EPLB_ALLOW_NO_ADAPTER").as_deref() == Ok("1")
}

/// What a test says that has no adapter.
pub fn no_adapter(reason: &str) -> String {
    format!("{reason}; tests/run.sh installs a software driver, EPLB_ALLOW_NO_ADAPTER=1 goes without")
}
