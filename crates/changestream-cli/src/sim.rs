//! `changestream sim`.

use std::io::{self, Read, Write};
use std::sync::mpsc;
use std::time::Duration;

use changestream_core::uri::ConnectionString;
use changestream_sim::{Config, Deployment, RunningDeployment};

use crate::exit::{EXIT_CODES, Exit, Failure};
use crate::signals::Stop;

/// Run a simulated deployment on this machine's loopback.
///
/// Prints its connection string on the first line, without a password, and runs until SIGINT, SIGTERM or the end of
/// standard input.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// Members of the replica set, or of each shard.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=50))]
    members: u8,

    /// A single server, in no replica set.
    #[arg(long, conflicts_with = "members")]
    standalone: bool,

    /// A sharded cluster of two shards behind mongos.
    ///
    /// An event is shown once every shard is past it, and a shard without writes is so with its next no-op only, as in
    /// a real cluster.
    #[arg(long, conflicts_with = "standalone")]
    sharded: bool,

    /// How many mongos a sharded cluster has.
    #[arg(long, value_name = "N", default_value_t = 2, requires = "sharded", value_parser = clap::value_parser!(u8).range(1..=50))]
    mongos: u8,

    /// How often an idle primary writes a no-op, in milliseconds [default: 10000, as a server].
    ///
    /// That moves the resume tokens of idle streams, and lets a mongos show the events of other shards.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    noop_interval_ms: Option<u64>,

    /// Port of the first member or mongos; the others take the following ones [default: any that are free].
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// Server version to behave as.
    #[arg(long, value_name = "V", default_value = "7.0")]
    server_version: String,

    /// User of the database admin; from then on authentication is required.
    #[arg(long, value_name = "NAME", requires = "password")]
    user: Option<String>,

    /// The user's password; safer in the environment variable.
    #[arg(
        long,
        env = "CHANGESTREAM_SIM_PASSWORD",
        hide_env_values = true,
        hide_default_value = true
    )]
    password: Option<String>,

    /// Seed of every random choice [default: from the operating system].
    #[arg(long, value_name = "S")]
    seed: Option<u64>,

    #[cfg(feature = "tls")]
    #[command(flatten)]
    tls: Tls,
}

#[cfg(feature = "tls")]
#[derive(Debug, clap::Args)]
struct Tls {
    /// Speak TLS, with certificates made at the start.
    ///
    /// Writes the authority to changestream-sim-ca.pem and a client's certificate and key to
    /// changestream-sim-client.pem; the printed connection string names the first.
    #[arg(long)]
    tls: bool,

    /// Folder for the two files of --tls [default: the current one].
    #[arg(
        long,
        value_name = "FOLDER",
        requires = "tls",
        default_value = ".",
        hide_default_value = true
    )]
    tls_folder: std::path::PathBuf,

    /// Turn away clients that show no certificate of the authority; the printed connection string then names the
    /// client's, too.
    #[arg(long, requires = "tls")]
    tls_client_certificates: bool,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let (end, ended) = mpsc::channel();
    let on_signal = end.clone();
    // That nobody waits for the end any more means that it has come.
    Stop::on_signal(move || {
        let _ = on_signal.send(());
    })?;
    let deployment = start(config(args)?)?;
    announce(&deployment.uri())?;
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock().by_ref(), &mut io::sink());
        let _ = end.send(());
    });
    let _ = ended.recv();
    Ok(())
}

fn config(args: Args) -> Result<Config, Failure> {
    let members = usize::from(args.members);
    let (listening, config) = if args.standalone {
        (1, Deployment::standalone())
    } else if args.sharded {
        let mongos = usize::from(args.mongos);
        let config = Deployment::sharded(SHARDS, mongos).shard_members(members);
        (mongos, config)
    } else {
        (members, Deployment::replica_set(members))
    };
    let mut config = seeded(config.server_version(args.server_version), args.seed);
    if let Some(port) = args.port {
        let ports: Option<Vec<u16>> = (0..listening)
            .map(|i| port.checked_add(u16::try_from(i).ok()?))
            .collect();
        let ports = ports
            .ok_or_else(|| Failure::usage(format!("--port {port}: the last member's is beyond 65535")))?;
        config = config.addresses(ports.into_iter().map(|port| format!("127.0.0.1:{port}")));
    }
    if let Some(millis) = args.noop_interval_ms {
        config = config.noop_interval(Duration::from_millis(millis));
    }
    if let (Some(user), Some(password)) = (args.user, args.password) {
        config = config.user(user, password);
    }
    #[cfg(feature = "tls")]
    if args.tls.tls {
        config = config.tls(tls(&args.tls)?);
    }
    Ok(config)
}

#[cfg(feature = "tls")]
fn tls(args: &Tls) -> Result<changestream_sim::Tls, Failure> {
    let tls = changestream_sim::Tls::write_to(&args.tls_folder).map_err(|error| {
        let folder = args.tls_folder.display();
        Failure::new(Exit::Other, format!("--tls-folder {folder}: {error}"))
    })?;
    Ok(tls.require_client_certificates(args.tls_client_certificates))
}

/// Of a sharded cluster; with fewer there would be nothing to merge.
const SHARDS: usize = 2;

/// Starts the deployment, on the ports that the system gives unless others were asked for.
pub(crate) fn start(config: Config) -> Result<RunningDeployment, Failure> {
    config.start().map_err(|error| {
        let wrong = error.kind() == io::ErrorKind::InvalidInput;
        let exit = if wrong { Exit::Usage } else { Exit::Other };
        Failure::new(exit, format!("cannot start the deployment: {error}"))
    })
}

/// With the seed, if there is one.
pub(crate) fn seeded(config: Config, seed: Option<u64>) -> Config {
    let Some(seed) = seed else { return config };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    config.seed(bytes)
}

/// The first line: whoever started the program reads it to know that the deployment is up, and where.
fn announce(uri: &str) -> Result<(), Failure> {
    let connection: ConnectionString = uri.parse().map_err(|error| {
        Failure::new(
            Exit::Other,
            format!("the deployment's connection string: {error}"),
        )
    })?;
    let mut out = io::stdout().lock();
    writeln!(out, "{connection}")
        .and_then(|()| out.flush())
        .map_err(|error| Failure::file("standard output", &error))
}
