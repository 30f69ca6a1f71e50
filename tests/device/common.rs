//! Settings that every device test shares: which adapter is meant, and how long to test it.
//!
//! - `EPLB_TEST_DEVICE`: the adapter, as `--device` takes it (a position in `eplb devices`, or a part of its
//!   name); the first usable one where it is not set.
//! - `EPLB_TEST_SHORT=1`: the shorter list of cases, for slow drivers.
//! - `EPLB_ALLOW_NO_ADAPTER=1`: where no adapter is found the tests say so and pass. Without it they fail:
//!   a suite that passes because it did nothing tells nothing.

use std::sync::OnceLock;

use eplb_wgpu::{DeviceChoice, Planner};

/// The planner on the adapter that is tested, one for all tests of the process; none where the absence of an
/// adapter is allowed. It is never the CPU backend, which would be compared with itself.
///
///     let Some(planner) = common::planner() else { return };
pub fn planner() -> Option<&'static Planner> {
    static PLANNER: OnceLock<Result<Planner, String>> = OnceLock::new();
    match PLANNER.get_or_init(open) {
        Ok(planner) => Some(planner),
        Err(reason) if may_lack_adapter() => {
            eprintln!("not run: {reason}");
            None
        }
        Err(reason) => panic!("{}", no_adapter(reason)),
    }
}

fn open() -> Result<Planner, String> {
    let choice = match std::env::var("EPLB_TEST_DEVICE") {
        Ok(text) => text.parse().map_err(|error| format!("EPLB_TEST_DEVICE: {error}"))?,
        Err(_) => DeviceChoice::Gpu,
    };
    let planner = Planner::new(choice.clone()).map_err(|error| error.to_string())?;
    match planner.device().backend.as_str() {
        "cpu" => Err(format!("EPLB_TEST_DEVICE {choice} is not an adapter")),
        _ => Ok(planner),
    }
}

/// Whether to run the shorter list of cases. (The part of the suite that is among the unit tests asks.)
#[allow(dead_code)]
pub fn is_short() -> bool {
    std::env::var("EPLB_TEST_SHORT").as_deref() == Ok("1")
}

/// Whether the absence of an adapter is allowed.
pub fn may_lack_adapter() -> bool {
    std::env::var("EPLB_ALLOW_NO_ADAPTER").as_deref() == Ok("1")
}

/// The words of a test that has no adapter.
pub fn no_adapter(reason: &str) -> String {
    format!("{reason}; tests/run.sh installs a software driver, EPLB_ALLOW_NO_ADAPTER=1 goes without")
}
