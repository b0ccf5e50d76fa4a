//! Runs the JSON files of the specifications "Server Selection" (but for `logging`, whose files need a server) and
//! "Max Staleness".

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bson::DateTime;
use changestream_core::random::Random;
use changestream_core::read_preference::TagSet;
use changestream_core::topology::{
    Operation, RoundTripTimes, SelectionCriteria, SelectionError, ServerDescription, ServerType,
    TopologyDescription, TopologyType, in_latency_window, less_loaded, suitable_servers,
};
use changestream_core::{ReadPreference, ReadPreferenceMode, ServerAddress};
use serde_json::Value;

use crate::expected::Expected;

/// Runs a file.
pub(crate) fn run_selection(file: &Value) -> Result<(), String> {
    let mut fields = Expected::new(file);
    let start = Instant::now();
    let description = topology(&fields.take("topology_description"), start);
    let criteria = SelectionCriteria {
        operation: match fields.take("operation").as_str() {
            None | Some("read") => Operation::Read,
            Some("write") => Operation::Write,
            Some(other) => return Err(format!("the test does not know the operation {other}")),
        },
        read_preference: read_preference(&fields.take("read_preference")),
        deprioritized: addresses(&fields.take("deprioritized_servers")),
    };
    // The specification's own default, not that of this client.
    let heartbeat = fields.take("heartbeatFrequencyMS").as_u64().unwrap_or(10_000);
    let suitable = suitable_servers(&description, &criteria, Duration::from_millis(heartbeat));
    let expected_suitable = fields.take("suitable_servers");
    let expected_near = fields.take("in_latency_window");
    let expects_error = fields.take("error").as_bool().unwrap_or(false);
    fields.finish()?;
    if expects_error {
        return match suitable {
            Err(SelectionError::InvalidReadPreference(_)) => Ok(()),
            other => Err(format!("expected an error, not {other:?}")),
        };
    }
    let suitable = suitable.map_err(|error| error.to_string())?;
    compare("suitable servers", &suitable, &expected_suitable)?;
    let near = in_latency_window(suitable, Duration::from_millis(15));
    compare("servers in the latency window", &near, &expected_near)
}

/// Runs a file.
pub(crate) fn run_round_trip(file: &Value) -> Result<(), String> {
    let mut times = match file["avg_rtt_ms"].as_f64() {
        Some(average) => RoundTripTimes::from_average(milliseconds(average)),
        None => RoundTripTimes::default(),
    };
    times.add(milliseconds(file["new_rtt_ms"].as_f64().unwrap()));
    let expected = milliseconds(file["new_avg_rtt"].as_f64().unwrap());
    let found = times.average().unwrap();
    if found.abs_diff(expected) > Duration::from_micros(1) {
        return Err(format!("expected {expected:?}, not {found:?}"));
    }
    Ok(())
}

/// Runs a file.
pub(crate) fn run_in_window(file: &Value) -> Result<(), String> {
    let description = topology(&file["topology_description"], Instant::now());
    let counts: BTreeMap<ServerAddress, usize> = file["mocked_topology_state"]
        .as_array()
        .unwrap()
        .iter()
        .map(|server| {
            (
                address_of(server),
                server["operation_count"].as_u64().unwrap() as usize,
            )
        })
        .collect();
    let mut random = Random::new([7; 32]);
    let mut chosen: BTreeMap<ServerAddress, u32> = BTreeMap::new();
    let iterations = file["iterations"].as_u64().unwrap();
    let criteria = SelectionCriteria::read(ReadPreference::new(ReadPreferenceMode::Nearest));
    for _ in 0..iterations {
        let suitable = suitable_servers(&description, &criteria, Duration::from_secs(10)).unwrap();
        let near = in_latency_window(suitable, Duration::from_millis(15));
        let server = less_loaded(&near, |address| counts[address], &mut random).unwrap();
        *chosen.entry(server.address.clone()).or_default() += 1;
    }
    let outcome = &file["outcome"];
    let tolerance = outcome["tolerance"].as_f64().unwrap();
    for (address, frequency) in outcome["expected_frequencies"].as_object().unwrap() {
        let times = chosen.get(&address.parse().unwrap()).copied().unwrap_or(0);
        let found = f64::from(times) / iterations as f64;
        let expected = frequency.as_f64().unwrap();
        // "If the expected frequency is 0 or 1, it must be that exactly."
        let tolerance = if expected == 0.0 || expected == 1.0 {
            0.0
        } else {
            tolerance
        };
        if (found - expected).abs() > tolerance {
            return Err(format!(
                "{address} was chosen with frequency {found}, not {expected}"
            ));
        }
    }
    Ok(())
}

fn topology(value: &Value, start: Instant) -> TopologyDescription {
    let topology_type = [
        TopologyType::Single,
        TopologyType::ReplicaSetNoPrimary,
        TopologyType::ReplicaSetWithPrimary,
        TopologyType::Sharded,
        TopologyType::LoadBalanced,
        TopologyType::Unknown,
    ]
    .into_iter()
    .find(|known| known.as_str() == value["type"])
    .unwrap();
    let servers = value["servers"].as_array().unwrap();
    TopologyDescription::new(topology_type, servers.iter().map(|value| server(value, start)))
}

fn server(value: &Value, start: Instant) -> ServerDescription {
    let mut server = ServerDescription::unknown(address_of(value));
    server.server_type = server_type(value["type"].as_str().unwrap());
    if let Some(average) = value["avg_rtt_ms"].as_f64() {
        server.round_trip = RoundTripTimes::from_average(milliseconds(average));
    }
    server.tags = tag_set(&value["tags"]);
    // Files that say nothing mean a server that this client can speak to.
    server.max_wire_version = value["maxWireVersion"].as_i64().unwrap_or(21) as i32;
    server.last_update_time = value["lastUpdateTime"]
        .as_u64()
        .map(|millis| start + Duration::from_millis(millis));
    let date = &value["lastWrite"]["lastWriteDate"]["$numberLong"];
    server.last_write_date = date
        .as_str()
        .map(|date| DateTime::from_millis(date.parse().unwrap()));
    server
}

fn server_type(name: &str) -> ServerType {
    [
        ServerType::Standalone,
        ServerType::Mongos,
        ServerType::PossiblePrimary,
        ServerType::RsPrimary,
        ServerType::RsSecondary,
        ServerType::RsArbiter,
        ServerType::RsOther,
        ServerType::RsGhost,
        ServerType::LoadBalancer,
        ServerType::Unknown,
    ]
    .into_iter()
    .find(|known| known.as_str() == name)
    .unwrap()
}

fn read_preference(value: &Value) -> ReadPreference {
    let mode = value["mode"].as_str().unwrap_or("primary");
    let mut preference = ReadPreference::new(ReadPreferenceMode::from_name(mode).unwrap());
    preference.tag_sets = value["tag_sets"]
        .as_array()
        .into_iter()
        .flatten()
        .map(tag_set)
        .collect();
    preference.max_staleness = value["maxStalenessSeconds"].as_u64().map(Duration::from_secs);
    preference
}

fn tag_set(value: &Value) -> TagSet {
    value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect()
}

fn compare(what: &str, found: &[&ServerDescription], expected: &Value) -> Result<(), String> {
    let found: BTreeSet<_> = found.iter().map(|server| server.address.clone()).collect();
    let expected = addresses(expected);
    if found == expected {
        return Ok(());
    }
    Err(format!("expected the {what} {expected:?}, not {found:?}"))
}

fn addresses(servers: &Value) -> BTreeSet<ServerAddress> {
    servers.as_array().into_iter().flatten().map(address_of).collect()
}

fn address_of(server: &Value) -> ServerAddress {
    server["address"].as_str().unwrap().parse().unwrap()
}

fn milliseconds(value: f64) -> Duration {
    Duration::from_nanos((value * 1e6).round() as u64)
}
