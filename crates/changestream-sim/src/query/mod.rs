//! What the simulated server does with documents: filters, updates, pipelines. Pure functions of their arguments.

pub mod compare;
pub mod expression;
pub mod filter;
pub(crate) mod needs;
pub mod number;
pub mod path;
pub mod pipeline;
pub mod projection;
pub mod show;
pub mod sort;
pub mod update;
