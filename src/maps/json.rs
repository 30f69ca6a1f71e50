//! The maps that are JSON: SGLang's, vLLM's and that of vLLM on Ascend.

use serde_json::{Value, json};

use super::rows::{Rows, list};
use super::{MapFile, PlanFormat};
use crate::error::ParseError;
use crate::trace::brief;
use crate::trace::strict;

/// The devices of a layer, each by number with its experts.
type LayerDevices = Vec<(u32, Vec<i32>)>;

/// SGLang's field.
const SGLANG: &str = "physical_to_logical_map";
/// The field of vLLM on Ascend.
const ASCEND: &str = "layer_list";
/// This project's field.
const EPLB: &str = "format";

/// The format of a JSON text, by its fields.
pub fn format_of(root: &Value) -> Result<PlanFormat, ParseError> {
    let Some(object) = root.as_object() else {
        return match root {
            Value::Array(_) => Ok(PlanFormat::Vllm),
            _ => Err(ParseError::content("not a map: neither an object nor an array")),
        };
    };
    let known = [(EPLB, PlanFormat::Eplb), (SGLANG, PlanFormat::Sglang), (ASCEND, PlanFormat::Ascend)];
    let found: Vec<_> = known.iter().filter(|(field, _)| object.contains_key(*field)).collect();
    match found[..] {
        [(_, format)] => Ok(*format),
        [(one, _), (other, _), ..] => {
            let reason = format!("it could be two things: it has {one:?} and {other:?}; name the format");
            Err(ParseError::content(reason))
        }
        [] if numbered(object).is_some() => Ok(PlanFormat::Vllm),
        [] => {
            let loads = ["logical_count", "load_history"].iter().find(|field| object.contains_key(**field));
            let what = match loads {
                Some(field) => format!("it has {field:?}, so it holds loads"),
                None => format!("it has none of {EPLB:?}, {SGLANG:?}, {ASCEND:?} and layer numbers"),
            };
            Err(ParseError::content(format!("not a plan file or a map: {what}")))
        }
    }
}

/// The fields of an object whose names are all layer numbers, by number.
fn numbered(object: &serde_json::Map<String, Value>) -> Option<Vec<(u32, &Value)>> {
    let rows = object.iter().map(|(name, row)| Some((name.parse::<u32>().ok()?, row)));
    let mut rows: Vec<_> = rows.collect::<Option<_>>().filter(|rows: &Vec<_>| !rows.is_empty())?;
    rows.sort_by_key(|&(number, _)| number);
    Some(rows)
}

pub fn read(bytes: &[u8], format: PlanFormat) -> Result<MapFile, ParseError> {
    let root = strict::read(bytes, "JSON")?;
    match format {
        PlanFormat::Sglang => sglang(&root),
        PlanFormat::Ascend => ascend(&root),
        _ => vllm(&root),
    }
}

fn array<'a>(value: &'a Value, what: &str) -> Result<&'a [Value], ParseError> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| ParseError::content(format!("{what} is not an array")))
}

/// The entries of one row.
fn entries(row: &Value, layer: u32) -> Result<Vec<i32>, ParseError> {
    let entry = |(slot, value): (usize, &Value)| {
        let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
        number.ok_or_else(|| {
            let value = value.to_string();
            ParseError::content(format!(
                "layer {layer}, slot {slot}: {} is not an expert or -1",
                brief(&value)
            ))
        })
    };
    array(row, &format!("layer {layer}"))?.iter().enumerate().map(entry).collect()
}

fn sglang(root: &Value) -> Result<MapFile, ParseError> {
    let object = root.as_object().ok_or_else(|| ParseError::content("not an object"))?;
    if let Some(other) = object.keys().find(|field| *field != SGLANG) {
        let reason = format!("SGLang takes {SGLANG:?} alone, and refuses {:?}", brief(other));
        return Err(ParseError::content(reason));
    }
    let map = object.get(SGLANG).ok_or_else(|| ParseError::content(format!("it has no {SGLANG:?}")))?;
    let mut rows = Rows::default();
    for (layer, row) in (0..).zip(array(map, SGLANG)?) {
        rows.push(layer, entries(row, layer)?);
    }
    rows.numbered(PlanFormat::Sglang)
}

fn vllm(root: &Value) -> Result<MapFile, ParseError> {
    let mut rows = Rows::default();
    if let Some(object) = root.as_object() {
        let layers =
            numbered(object).ok_or_else(|| ParseError::content("its fields are not layer numbers"))?;
        for (layer, row) in layers {
            rows.push(layer, entries(row, layer)?);
        }
        return rows.numbered(PlanFormat::Vllm);
    }
    let array = array(root, "the map")?;
    if array.first().is_some_and(Value::is_number) {
        rows.push(0, entries(root, 0)?);
    } else {
        for (layer, row) in (0..).zip(array) {
            rows.push(layer, entries(row, layer)?);
        }
    }
    rows.by_place(PlanFormat::Vllm)
}

fn ascend(root: &Value) -> Result<MapFile, ParseError> {
    let number = |value: &Value, field: &str, of: &str| {
        let number = value.get(field).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| ParseError::content(format!("{of}: {field} is not a whole number")))
    };
    let list = |value: &Value, field: &str, of: &str| -> Result<Vec<Value>, ParseError> {
        let list = value.get(field).and_then(Value::as_array).cloned();
        list.ok_or_else(|| ParseError::content(format!("{of}: {field} is not an array")))
    };
    let layers = list(root, ASCEND, "the map")?;
    if root.get("moe_layer_count").is_some() {
        let count = number(root, "moe_layer_count", "the map")? as usize;
        if count != layers.len() {
            let reason = format!("moe_layer_count {count} is not the number of layers, {}", layers.len());
            return Err(ParseError::content(reason));
        }
    }
    let mut devices_of_layers = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let id = number(layer, "layer_id", &format!("{ASCEND}[{at}]"))?;
        let of = format!("layer {id}");
        let mut devices = Vec::new();
        for device in list(layer, "device_list", &of)? {
            let device_id = number(&device, "device_id", &of)?;
            let experts = device.get("device_expert").unwrap_or(&Value::Null);
            let experts = entries(experts, id)
                .map_err(|error| ParseError::content(format!("device {device_id}: {error}")))?;
            devices.push((device_id, experts));
        }
        devices.sort_by_key(|device| device.0);
        if let Some(at) = (0..devices.len()).find(|&at| devices[at].0 as usize != at) {
            return Err(ParseError::content(format!("{of}: device {at} is not there once")));
        }
        let count = number(layer, "device_count", &of)? as usize;
        if count != devices.len() {
            let reason =
                format!("{of}: device_count {count} is not the number of devices, {}", devices.len());
            return Err(ParseError::content(reason));
        }
        devices_of_layers.push((id, devices));
    }
    of_devices(devices_of_layers)
}

/// Rows of devices that may hold unequal numbers of experts: the widest gives the slots of all, and the others keep
/// some free.
fn of_devices(mut layers: Vec<(u32, LayerDevices)>) -> Result<MapFile, ParseError> {
    layers.sort_by_key(|layer| layer.0);
    let devices = layers.first().map_or(0, |layer| layer.1.len());
    if let Some((id, other)) = layers.iter().find(|layer| layer.1.len() != devices) {
        let reason = format!("layer {id} has {} devices, the first has {devices}", other.len());
        return Err(ParseError::content(reason));
    }
    let all = layers.iter().flat_map(|layer| &layer.1);
    let widest = all.clone().map(|device| device.1.len()).max().unwrap_or(0);
    // One long device among many would have all the others filled up.
    let given: usize = all.map(|device| device.1.len()).sum();
    let slots = widest.saturating_mul(devices).saturating_mul(layers.len());
    if slots > given.saturating_mul(2) {
        let reason = format!("{given} experts leave most of {slots} slots free: a device has {widest}");
        return Err(ParseError::content(reason));
    }
    let mut rows = Rows::default();
    for (id, devices) in layers {
        let fill = |(_, mut experts): (u32, Vec<i32>)| {
            experts.resize(widest, -1);
            experts
        };
        rows.push(id, devices.into_iter().flat_map(fill).collect());
    }
    let file = rows.numbered(PlanFormat::Ascend)?;
    Ok(file.with_gpus(devices)?)
}

pub fn write_sglang(rows: &[&[i32]]) -> String {
    format!("{{\"{SGLANG}\": {}}}\n", nested(rows))
}

pub fn write_vllm(rows: &[&[i32]]) -> String {
    nested(rows) + "\n"
}

/// One row a line.
fn nested(rows: &[&[i32]]) -> String {
    let rows: Vec<String> = rows.iter().map(|row| list(row)).collect();
    format!("[\n{}\n]", rows.join(",\n"))
}

/// Rows with the numbers of their layers, on this many devices.
pub fn write_ascend(rows: &[(u32, &[i32])], devices: usize) -> String {
    let layer = |&(id, row): &(u32, &[i32])| {
        let device = |(device, slots): (usize, &[i32])| {
            let experts: Vec<i32> = slots.iter().copied().filter(|&expert| expert >= 0).collect();
            json!({ "device_id": device, "device_expert": experts })
        };
        let list: Vec<Value> = row.chunks((row.len() / devices).max(1)).enumerate().map(device).collect();
        json!({ "layer_id": id, "device_count": devices, "device_list": list })
    };
    let layers: Vec<Value> = rows.iter().map(layer).collect();
    json!({ "moe_layer_count": rows.len(), ASCEND: layers }).to_string() + "\n"
}
