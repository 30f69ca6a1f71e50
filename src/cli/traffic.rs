//! Where tokens go under a dispatch, as rows and as JSON.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::{Map, Value, json};

use super::compared::mean_and_worst_text;
use crate::check::{self, Traffic};
use crate::{Cluster, Dispatch, Error, Loads};

/// The names of dispatches.
pub fn parse_dispatch() -> impl TypedValueParser<Value = Dispatch> {
    PossibleValuesParser::new(Dispatch::ALL.map(Dispatch::name)).try_map(|name| name.parse::<Dispatch>())
}

/// A map on a cluster, the loads that it serves, and what the user says of where they come from.
pub struct Served<'a> {
    pub loads: &'a Loads,
    pub cluster: &'a Cluster,
    /// `[layers][slots]`.
    pub map: &'a [i32],
    /// The tokens that each GPU sends, where they are known.
    pub sources: Option<&'a [Loads]>,
    /// The dispatch, where the user names one.
    pub dispatch: Option<Dispatch>,
}

impl Served<'_> {
    /// Whether there is something to tell: with one node and even sources all dispatches come to much the same.
    fn is_told(&self) -> bool {
        self.cluster.num_nodes() > 1 || self.sources.is_some() || self.dispatch.is_some()
    }

    fn traffic(&self, dispatch: Dispatch) -> Result<Traffic, Error> {
        match self.sources {
            Some(sources) => check::traffic_from(sources, self.cluster, self.map, dispatch),
            None => check::traffic(self.loads, self.cluster, self.map, dispatch),
        }
    }

    /// A row for the dispatch that the user names, else for the nearest one.
    pub fn rows(&self) -> Result<Vec<(&'static str, String)>, Error> {
        if !self.is_told() {
            return Ok(Vec::new());
        }
        let dispatch = self.dispatch.unwrap_or(Dispatch::Nearest);
        let (each, weights) = match self.sources {
            Some(_) => (vec![self.traffic(dispatch)?], vec![1.0]),
            // Of several loads each alone: their mean is more even than any of them.
            None => {
                let of = |loads: &Loads| check::traffic(loads, self.cluster, self.map, dispatch);
                (self.loads.windows().map(of).collect::<Result<_, _>>()?, self.loads.window_weights())
            }
        };
        let mean = |of: fn(&Traffic) -> f64| {
            each.iter().zip(&weights).map(|(one, weight)| of(one) * weight).sum::<f64>()
        };
        let balancedness = each.iter().map(Traffic::balancedness).collect::<Vec<_>>();
        let sent = if self.sources.is_some() { ", as GPUs sent" } else { "" };
        let text = format!(
            "{:.1} % in the node, {:.1} % on the GPU; balancedness {}   (dispatch {dispatch}{sent})",
            mean(Traffic::in_node) * 100.0,
            mean(Traffic::on_gpu) * 100.0,
            mean_and_worst_text(&balancedness, &weights),
        );
        Ok(vec![("traffic that stays", text)])
    }

    /// Every dispatch by its name; nothing where there is nothing to tell.
    pub fn json(&self) -> Result<Value, Error> {
        if !self.is_told() {
            return Ok(Value::Null);
        }
        let of = |dispatch: Dispatch| {
            let traffic = self.traffic(dispatch)?;
            let told = json!({
                "balancedness": traffic.balancedness(), "on_gpu": traffic.on_gpu(), "in_node": traffic.in_node(),
            });
            Ok((dispatch.name().to_string(), told))
        };
        Ok(Value::Object(Dispatch::ALL.into_iter().map(of).collect::<Result<Map<_, _>, Error>>()?))
    }
}
