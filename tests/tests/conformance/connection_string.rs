//! The connection strings of the specifications' own test files: connection-string, uri-options, auth and
//! read-write-concern.

use changestream_core::uri::Acknowledgment;
use changestream_core::{ClientOptions, ConnectionString, ServerAddress};
use serde_json::{Map, Value, json};

/// Runs one case.
pub(crate) fn run(case: &Value) -> Result<(), String> {
    let uri = case["uri"].as_str().expect("a uri");
    let valid = case["valid"].as_bool().expect("valid or not");
    let parsed = match (uri.parse::<ConnectionString>(), valid) {
        (Ok(parsed), true) => parsed,
        (Ok(_), false) => return Err("must be refused".to_owned()),
        (Err(error), true) => return Err(format!("is refused: {error}")),
        (Err(_), false) => return Ok(()),
    };
    if let Some(warning) = case["warning"].as_bool() {
        same("warning", &json!(!parsed.warnings.is_empty()), &json!(warning))?;
    }
    let options = &parsed.options;
    if let Some(hosts) = case["hosts"].as_array() {
        check_hosts(&options.hosts, hosts)?;
    }
    if let Some(auth) = case["auth"].as_object() {
        check_auth(options, auth)?;
    }
    if let Some(wanted) = case["options"].as_object() {
        for (name, value) in wanted {
            same(name, &option(options, name)?, value)?;
        }
    }
    if let Some(credential) = case.get("credential") {
        same("credential", &credential_of(options), credential)?;
    }
    if let Some(concern) = case.get("writeConcern") {
        same("writeConcern", &write_concern_of(options), concern)?;
    }
    if let Some(concern) = case.get("readConcern") {
        let actual = options
            .read_concern
            .as_ref()
            .map_or_else(|| json!({}), |concern| json!({ "level": concern.level }));
        same("readConcern", &actual, concern)?;
    }
    Ok(())
}

fn check_hosts(actual: &[ServerAddress], wanted: &[Value]) -> Result<(), String> {
    same("hosts", &json!(actual.len()), &json!(wanted.len()))?;
    for (actual, wanted) in actual.iter().zip(wanted) {
        same("host", &json!(actual.host()), &wanted["host"])?;
        let is_socket = actual.port().is_none();
        same("socket", &json!(is_socket), &json!(wanted["type"] == "unix"))?;
        let port = match wanted["port"].as_u64() {
            Some(port) => json!(port),
            None if is_socket => Value::Null,
            None => json!(ServerAddress::DEFAULT_PORT),
        };
        same("port", &json!(actual.port()), &port)?;
    }
    Ok(())
}

fn check_auth(options: &ClientOptions, wanted: &Map<String, Value>) -> Result<(), String> {
    let credential = options.credential.as_ref();
    let username = credential.and_then(|c| c.username.as_deref());
    let password = credential.and_then(|c| c.password.as_ref()).map(|p| p.reveal());
    same("username", &json!(username), &wanted["username"])?;
    same("password", &json!(password), &wanted["password"])?;
    same("db", &json!(options.default_database), &wanted["db"])
}

/// An option's value in the form of the files. Names compare without case.
pub(crate) fn option(options: &ClientOptions, name: &str) -> Result<Value, String> {
    let milliseconds = |duration: Option<std::time::Duration>| json!(duration.map(|d| d.as_millis() as u64));
    let credential = options.credential.as_ref();
    let tls = &options.tls_options;
    let preference = &options.read_preference;
    Ok(match name.to_ascii_lowercase().as_str() {
        "appname" => json!(options.app_name),
        "authmechanism" => json!(credential.and_then(|c| c.mechanism).map(|m| m.as_str())),
        "authmechanismproperties" => properties_of(options),
        "authsource" => json!(credential.map(|c| &c.source)),
        "compressors" => json!(options.compressors.iter().map(|c| c.as_str()).collect::<Vec<_>>()),
        "connecttimeoutms" => milliseconds(options.connect_timeout),
        "directconnection" => json!(options.direct_connection),
        "enableoverloadretargeting" => json!(options.enable_overload_retargeting),
        "heartbeatfrequencyms" => milliseconds(options.heartbeat_frequency),
        "journal" => json!(options.write_concern.journal),
        "loadbalanced" => json!(options.load_balanced),
        "localthresholdms" => milliseconds(Some(options.local_threshold)),
        "maxadaptiveretries" => json!(options.max_adaptive_retries),
        "maxconnecting" => json!(options.pool.max_connecting),
        "maxidletimems" => milliseconds(options.pool.max_idle_time),
        "maxpoolsize" => json!(options.pool.max_size),
        "maxstalenessseconds" => json!(preference.max_staleness.map(|d| d.as_secs())),
        "minpoolsize" => json!(options.pool.min_size),
        "proxyhost" => json!(options.proxy.host),
        "proxypassword" => json!(options.proxy.password.as_ref().map(|p| p.reveal())),
        "proxyport" => json!(options.proxy.port),
        "proxyusername" => json!(options.proxy.username),
        "readconcernlevel" => json!(options.read_concern.as_ref().map(|c| &c.level)),
        "readpreference" => json!(preference.mode.as_str()),
        "readpreferencetags" => json!(preference.tag_sets),
        "replicaset" => json!(options.replica_set),
        "retryreads" => json!(options.retry_reads),
        "retrywrites" => json!(options.retry_writes),
        "servermonitoringmode" => json!(options.server_monitoring_mode.map(|m| m.as_str())),
        "serverselectiontimeoutms" => milliseconds(Some(options.server_selection_timeout)),
        "serverselectiontryonce" => json!(options.server_selection_try_once),
        "sockettimeoutms" => milliseconds(options.socket_timeout),
        "srvallowedhostssuffix" => json!(options.srv_allowed_hosts_suffix),
        "srvmaxhosts" => json!(options.srv_max_hosts),
        "srvservicename" => json!(options.srv_service_name),
        "timeoutms" => milliseconds(options.timeout),
        "ssl" | "tls" => json!(options.tls),
        "tlsallowinvalidcertificates" => json!(tls.allow_invalid_certificates),
        "tlsallowinvalidhostnames" => json!(tls.allow_invalid_hostnames),
        "tlscafile" => json!(tls.ca_file),
        "tlscertificatekeyfile" => json!(tls.certificate_key_file),
        "tlscertificatekeyfilepassword" => {
            json!(tls.certificate_key_file_password.as_ref().map(|p| p.reveal()))
        }
        "tlsdisablecertificaterevocationcheck" => json!(tls.disable_certificate_revocation_check),
        "tlsdisableocspendpointcheck" => json!(tls.disable_ocsp_endpoint_check),
        "tlsinsecure" => json!(tls.insecure),
        "w" => acknowledgment_of(options),
        "waitqueuetimeoutms" => milliseconds(options.pool.wait_queue_timeout),
        "wtimeoutms" => milliseconds(options.write_concern.w_timeout),
        "zlibcompressionlevel" => json!(options.zlib_compression_level),
        _ => return Err(format!("no check of the option {name}")),
    })
}

fn credential_of(options: &ClientOptions) -> Value {
    let Some(credential) = &options.credential else {
        return Value::Null;
    };
    json!({
        "username": credential.username,
        "password": credential.password.as_ref().map(|p| p.reveal()),
        "source": credential.source,
        "mechanism": credential.mechanism.map(|m| m.as_str()),
        "mechanism_properties": properties_of(options),
    })
}

fn properties_of(options: &ClientOptions) -> Value {
    let properties = options.credential.as_ref().map(|c| &c.mechanism_properties);
    match properties {
        Some(properties) if !properties.is_empty() => properties
            .iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect::<Map<_, _>>()
            .into(),
        Some(_) | None => Value::Null,
    }
}

fn write_concern_of(options: &ClientOptions) -> Value {
    let concern = &options.write_concern;
    let mut document = Map::new();
    if concern.w.is_some() {
        document.insert("w".to_owned(), acknowledgment_of(options));
    }
    if let Some(timeout) = concern.w_timeout {
        document.insert("wtimeoutMS".to_owned(), json!(timeout.as_millis() as u64));
    }
    if let Some(journal) = concern.journal {
        document.insert("journal".to_owned(), json!(journal));
    }
    document.into()
}

fn acknowledgment_of(options: &ClientOptions) -> Value {
    match &options.write_concern.w {
        Some(Acknowledgment::Nodes(number)) => json!(number),
        Some(Acknowledgment::Named(name)) => json!(name),
        Some(other) => panic!("no form in the files for {other:?}"),
        None => Value::Null,
    }
}

fn same(what: &str, actual: &Value, wanted: &Value) -> Result<(), String> {
    if sorted(actual) == sorted(wanted) {
        return Ok(());
    }
    Err(format!("{what} is {actual}, must be {wanted}"))
}

/// The same value with the fields of its documents in order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            fields.into_iter().collect::<Map<_, _>>().into()
        }
        Value::Array(values) => values.iter().map(sorted).collect::<Vec<_>>().into(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}
