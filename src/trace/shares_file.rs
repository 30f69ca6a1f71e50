//! Files of tables of shares, `eplb-shares/1`.

use std::path::Path;

use serde_json::{Value, json};

use super::plan_file::{CHECKSUM, checksum, checksummed, numbers};
use super::{brief, read_file};
use crate::cluster::Cluster;
use crate::error::{Error, ParseError};
use crate::plan::Placement;
use crate::shares::{PARTS, Shares};

/// The format's name and version.
const FORMAT: &str = "eplb-shares/1";

/// A table of shares as the bytes of a file: JSON, with the fingerprint of the plan that it is for, and a checksum as plan
/// files have it.
///
/// ```
/// use eplb_wgpu::trace::{SharesFile, shares_bytes};
/// use eplb_wgpu::{Cluster, DeviceChoice, Loads, PlanOptions, Planner};
/// let (loads, cluster) = (Loads::from_counts(1, 2, &[3, 1])?, Cluster::new(4, 1, 1, 2)?);
/// let plan = Planner::new(DeviceChoice::Cpu)?.plan(&loads, &cluster, &PlanOptions::default())?;
/// let shares = plan.batch_shares(&loads)?;
/// let file = SharesFile::parse(&shares_bytes(&shares, plan.placement(), plan.layer_ids())).unwrap();
/// assert_eq!(file.shares(&cluster, plan.placement())?, shares);
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
#[must_use]
pub fn shares_bytes(shares: &Shares, plan: &Placement, layer_ids: &[u32]) -> Vec<u8> {
    let mut root = json!({
        "format": FORMAT,
        "layer_ids": layer_ids,
        "parts": PARTS,
        "plan_fingerprint": format!("{:016x}", plan.fingerprint()),
        "shares": shares.parts().chunks(shares.slots()).collect::<Vec<_>>(),
    });
    root[CHECKSUM] = Value::String(checksum(&mut root));
    let mut bytes = root.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

/// A table read from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharesFile {
    /// The numbers of its layers, `[layers]`.
    pub layer_ids: Vec<u32>,
    /// The fingerprint of the plan that it is for.
    pub plan_fingerprint: String,
    parts: Vec<u16>,
}

impl SharesFile {
    /// Reads a file of a table; its content must have its checksum.
    ///
    /// # Errors
    /// [`Error::Read`] where the file cannot be read, [`Error::Parse`] with what is missing or damaged.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&read_file(path)?).map_err(|source| Error::parse(path, source))
    }

    /// Reads the bytes of a file of a table.
    ///
    /// # Errors
    /// The part that is missing or damaged.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let root = checksummed(bytes, "a file of shares", FORMAT)?;
        if root.get("parts").and_then(Value::as_u64) != Some(u64::from(PARTS)) {
            return Err(ParseError::content(format!("parts is not {PARTS}")));
        }
        let too_large = |_| ParseError::content(format!("shares is not of parts up to {PARTS}"));
        let parts = numbers(&root, "shares", 1)?.into_iter().map(u16::try_from);
        let parts = parts.collect::<Result<Vec<_>, _>>().map_err(too_large)?;
        let layer_ids = serde_json::from_value(root["layer_ids"].clone())
            .map_err(|_| ParseError::content("layer_ids is not an array of whole numbers"))?;
        let plan_fingerprint = root["plan_fingerprint"].as_str();
        let plan_fingerprint = plan_fingerprint
            .ok_or_else(|| ParseError::content("plan_fingerprint is not a text"))?
            .to_string();
        Ok(Self { layer_ids, plan_fingerprint, parts })
    }

    /// The table, for the plan that it was made for.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the plan is another one, and as for [`Shares::new`].
    pub fn shares(&self, cluster: &Cluster, plan: &Placement) -> Result<Shares, Error> {
        let fingerprint = format!("{:016x}", plan.fingerprint());
        if fingerprint != self.plan_fingerprint {
            let rule = format!("is not that of the plan, {fingerprint}: the table is for another one");
            return Err(Error::invalid(
                "plan_fingerprint of the shares",
                brief(&self.plan_fingerprint),
                rule,
            ));
        }
        Shares::new(plan.experts(), cluster, plan.physical_to_logical(), self.parts.clone())
    }
}
