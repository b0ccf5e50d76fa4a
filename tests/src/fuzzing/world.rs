//! The whole client against a deployment, through faults.

use crate::simulation;

/// A simulation whose turns the bytes decide: nothing is lost, repeated, invented or stuck.
///
/// # Panics
/// It does not hold.
pub fn world(data: &[u8]) {
    const LONGEST: usize = 400;
    simulation::play(&data[..data.len().min(LONGEST)]);
}
