//! `eplb devices`

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::print;
use crate::{Error, auto_device, devices};

#[derive(Args)]
#[command(after_help = "Examples:
  eplb devices
  eplb devices --json

Exit codes: 0 listed, also where there is none; 2 bad input.")]
pub struct Devices {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Devices {
    pub fn run(self) -> Result<ExitCode, Error> {
        let found = devices();
        let auto = auto_device().label();
        if self.json {
            let list: Vec<_> = found
                .iter()
                .enumerate()
                .map(|(index, d)| {
                    json!({
                        "index": index, "name": d.name, "backend": d.backend, "kind": d.kind,
                        "driver": d.driver, "driver_info": d.driver_info, "is_software": d.is_software,
                        "unusable_because": d.unusable_because, "features": d.features,
                        "limits": d.limits.iter().map(|&(name, value)| (name.to_string(), json!(value)))
                            .collect::<serde_json::Map<_, _>>(),
                    })
                })
                .collect();
            print(&json!({ "devices": list, "auto": auto }).to_string());
            return Ok(ExitCode::SUCCESS);
        }
        let mut lines = Vec::new();
        for (index, device) in found.iter().enumerate() {
            let state =
                device.unusable_because.as_ref().map_or(String::new(), |why| format!("  unusable: {why}"));
            lines.push(format!(
                "{index}  {}  {}  {}{state}",
                device.label(),
                device.kind,
                device.driver_info
            ));
            for (name, value) in &device.limits {
                lines.push(format!("     {name} {value}"));
            }
        }
        if !found.is_empty() {
            lines.push(
                "each: what --device takes, name (backend), kind, driver; below it its limits".to_string(),
            );
        }
        lines.push(format!("auto takes: {auto}"));
        print(&lines.join("\n"));
        Ok(ExitCode::SUCCESS)
    }
}
