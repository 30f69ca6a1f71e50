//! Which adapters are here. `tests/run.sh` reads what this prints.

use eplb_wgpu::devices;

use crate::common;

/// Prints one line an adapter, tab-separated: `adapter`, its index, backend, name, then the driver, or why it
/// cannot be used after `unusable:`.
#[test]
fn every_adapter_is_listed() {
    let adapters = devices();
    // The harness may have printed the name of the test without ending the line.
    println!();
    for (index, info) in adapters.iter().enumerate() {
        let remark = match &info.why_not {
            None => format!("{}, {} {}", info.kind, info.driver, info.driver_info),
            Some(reason) => format!("unusable: {reason}"),
        };
        println!("adapter\t{index}\t{}\t{}\t{remark}", info.backend, info.name);
    }
    let usable = adapters.iter().any(|info| info.why_not.is_none());
    assert!(usable || common::may_lack_adapter(), "{}", common::no_adapter("no adapter is usable"));
}
