//! Loads as JSON: `{"logical_count": …}`, `{"load_history": [{"logical_expert_load": …}, …]}`, or a bare array.

use serde_json::Value;

use super::LoadHistory;

pub fn read(bytes: &[u8]) -> Result<LoadHistory, String> {
    let root: Value = serde_json::from_slice(bytes).map_err(|error| format!("not JSON: {error}"))?;
    let windows: Vec<&Value> = match &root {
        Value::Object(fields) => match (fields.get("logical_count"), fields.get("load_history")) {
            (Some(array), _) => windows_of(array)?,
            (None, Some(Value::Array(steps))) => steps
                .iter()
                .enumerate()
                .map(|(i, step)| {
                    let load = step.get("logical_expert_load");
                    load.ok_or_else(|| format!("load_history[{i}] has no logical_expert_load"))
                })
                .collect::<Result<_, _>>()?,
            _ => return Err("the object has neither logical_count nor load_history".into()),
        },
        array => windows_of(array)?,
    };
    let mut all = Numbers { values: Vec::new(), counts: Some(Vec::new()) };
    let mut shape: Option<(usize, usize)> = None;
    for (w, window) in windows.iter().enumerate() {
        let layers = array(window, || format!("window {w}"))?;
        for (l, layer) in layers.iter().enumerate() {
            let row = array(layer, || format!("window {w}, layer {l}"))?;
            let (first_layers, experts) = *shape.get_or_insert((layers.len(), row.len()));
            if row.len() != experts {
                return Err(format!(
                    "window {w}, layer {l} has {} loads, the first has {experts}",
                    row.len()
                ));
            }
            if layers.len() != first_layers {
                return Err(format!("window {w} has {} layers, the first has {first_layers}", layers.len()));
            }
            for (e, value) in row.iter().enumerate() {
                all.push(value)
                    .ok_or_else(|| format!("window {w}, layer {l}, expert {e}: {value} is not a number"))?;
            }
        }
        if layers.is_empty() {
            return Err(format!("window {w} has no layers"));
        }
    }
    let (layers, experts) = shape.ok_or("there are no loads")?;
    match all.counts {
        Some(counts) => LoadHistory::from_counts(windows.len(), layers, experts, counts),
        None => LoadHistory::from_values(windows.len(), layers, experts, all.values),
    }
    .map_err(|error| error.to_string())
}

struct Numbers {
    values: Vec<f64>,
    counts: Option<Vec<u64>>,
}

impl Numbers {
    fn push(&mut self, value: &Value) -> Option<()> {
        self.values.push(value.as_f64()?);
        match (value.as_u64(), &mut self.counts) {
            (Some(count), Some(all)) => all.push(count),
            _ => self.counts = None,
        }
        Some(())
    }
}

/// A 3-D array is windows, a 2-D array is one window.
fn windows_of(value: &Value) -> Result<Vec<&Value>, String> {
    let outer = array(value, || "the loads".into())?;
    let deep =
        outer.first().and_then(Value::as_array).and_then(|row| row.first()).is_some_and(Value::is_array);
    Ok(if deep { outer.iter().collect() } else { vec![value] })
}

fn array(value: &Value, what: impl Fn() -> String) -> Result<&Vec<Value>, String> {
    value.as_array().ok_or_else(|| format!("{}: not an array", what()))
}

pub fn write(history: &LoadHistory) -> Vec<u8> {
    let number = |at: usize| match &history.counts {
        Some(counts) => counts[at].to_string(),
        None => history.values[at].to_string(),
    };
    let (l, e) = (history.layers, history.experts);
    let row = |w: usize, r: usize| (0..e).map(|i| number((w * l + r) * e + i)).collect::<Vec<_>>().join(",");
    let window = |w: usize| (0..l).map(|r| format!("[{}]", row(w, r))).collect::<Vec<_>>().join(",\n");
    let windows: Vec<String> = (0..history.windows).map(window).collect();
    let array = match windows.as_slice() {
        [one] => one.clone(),
        many => many.iter().map(|w| format!("[{w}]")).collect::<Vec<_>>().join(",\n"),
    };
    format!("{{\"logical_count\": [\n{array}\n]}}\n").into_bytes()
}
