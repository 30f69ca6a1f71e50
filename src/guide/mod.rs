//! The guide: how to use the crate, page by page.
//!
//! - [`problem`]: what to give the planner, and what it refuses;
//! - [`quick_start`]: a first plan, from the command line and from code;
//! - [`replicas`]: how many replicas to choose, and whether balancing pays;
//! - [`report`]: a page to look at, and how to read it;
//! - [`formats`]: the files that are read and written, and how each is recognised;
//! - [`serving`]: plans over time, what to set, and what it brings;
//! - [`locality`]: copies spread over nodes, and how tokens find them;
//! - [`foreign`]: some replicas outside the home node of their group;
//! - [`speeds`]: GPUs of unequal speed, and GPUs that are gone;
//! - [`shares`]: uneven shares of an expert's tokens, and how an engine deals by them;
//! - [`how_it_works`]: one small layer, followed through the stages by hand;
//! - [`determinism`]: plans made on several ranks;
//! - [`coming_from`]: what to type, coming from another program;
//! - [`browser`]: plans by WebGPU and wasm, and pages that make them.
//!
//! [The crate's front page](crate) tells the meaning of the words and how the planner works inside.

/// The planner's input, and what it refuses.
pub mod problem {
    #![doc = include_str!("problem.md")]
}

/// A first plan, from the command line and from code.
pub mod quick_start {
    #![doc = include_str!("quick_start.md")]
}

/// How many replicas to choose, and whether balancing pays.
pub mod replicas {
    #![doc = include_str!("replicas.md")]
}

/// A page to look at, and how to read it.
pub mod report {
    #![doc = include_str!("report.md")]
}

/// The files that are read and written, and how each is recognised.
pub mod formats {
    #![doc = include_str!("formats.md")]
}

/// Plans over time: what to set, and what it brings.
pub mod serving {
    #![doc = include_str!("serving.md")]
}

/// Copies spread over nodes, and how tokens find them.
pub mod locality {
    #![doc = include_str!("locality.md")]
}

/// Some replicas outside the home node of their group.
pub mod foreign {
    #![doc = include_str!("foreign.md")]
}

/// GPUs of unequal speed, and GPUs that are gone.
pub mod speeds {
    #![doc = include_str!("speeds.md")]
}

/// Tables of shares: what they bring, and what an engine needs for them.
pub mod shares {
    #![doc = include_str!("shares.md")]
}

/// One small layer, followed through the stages by hand.
pub mod how_it_works {
    #![doc = include_str!("how_it_works.md")]
}

/// Plans made on several ranks.
pub mod determinism {
    #![doc = include_str!("determinism.md")]
}

/// Commands for whoever comes from DeepSeek's `eplb.py`, vLLM, SGLang, TensorRT-LLM, vLLM on Ascend or Megatron.
pub mod coming_from {
    #![doc = include_str!("coming_from.md")]
}

/// Plans by WebGPU and wasm, and pages that make them.
pub mod browser {
    #![doc = include_str!("browser.md")]
}
