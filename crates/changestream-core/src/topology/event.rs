//! What changed, for whoever watches.

use std::sync::Arc;

use super::{ServerDescription, TopologyDescription};
use crate::ServerAddress;

/// A change of the topology (SDAM Logging And Monitoring, "Events API"), in the order in which it happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TopologyEvent {
    /// The topology was made. The first event.
    Opening,
    /// The description of the deployment changed.
    #[non_exhaustive]
    DescriptionChanged {
        /// What was known before.
        previous: Arc<TopologyDescription>,
        /// What is known now.
        new: Arc<TopologyDescription>,
    },
    /// A server was added.
    #[non_exhaustive]
    ServerOpening {
        /// Which one.
        address: ServerAddress,
    },
    /// The description of a server changed.
    #[non_exhaustive]
    ServerDescriptionChanged {
        /// What was known before.
        previous: Arc<ServerDescription>,
        /// What is known now.
        new: Arc<ServerDescription>,
    },
    /// A server was taken out.
    #[non_exhaustive]
    ServerClosed {
        /// Which one.
        address: ServerAddress,
    },
    /// The topology was closed. The last event.
    Closed,
}
