//! A simulated MongoDB deployment: pure, deterministic, with elections and faults to order.

pub mod error;
pub mod keys;
pub mod keystring;
pub mod query;
pub mod token;
