//! A simulated MongoDB deployment: pure, deterministic, with elections and faults to order.
