//! The deployments that tests run against, and which of them a test admits.

use changestream_sim::{Config, Deployment};

use super::fault::{Fault, unsupported};
use super::schema::Requirement;

/// A deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Environment {
    pub(super) topology: Topology,
    /// The servers' version.
    pub(super) version: &'static str,
    /// How clients have to authenticate.
    pub(super) users: Users,
}

/// The users of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Users {
    /// Nobody has to authenticate.
    Nobody,
    /// One with a password.
    Password,
    /// That one, and one with a token of MONGODB-OIDC.
    Token,
}

impl Users {
    const ALL: [Self; 3] = [Self::Nobody, Self::Password, Self::Token];

    /// Whether anybody has to authenticate.
    pub(super) fn are_there(self) -> bool {
        self != Self::Nobody
    }

    fn have(self, mechanism: &str) -> bool {
        match self {
            Self::Nobody => false,
            Self::Password => mechanism.starts_with("SCRAM-SHA-"),
            Self::Token => mechanism == "MONGODB-OIDC",
        }
    }
}

/// What a deployment is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topology {
    Single,
    ReplicaSet,
    Sharded,
    LoadBalanced,
}

impl Topology {
    const ALL: [Self; 4] = [Self::ReplicaSet, Self::Sharded, Self::Single, Self::LoadBalanced];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::ReplicaSet => "replicaset",
            Self::Sharded => "sharded",
            Self::LoadBalanced => "load-balanced",
        }
    }

    /// Whether it is of the kind that a test names.
    fn is(self, name: &str) -> bool {
        // The shards of the simulated cluster are replica sets.
        name == self.name() || (self == Self::Sharded && name == "sharded-replicaset")
    }
}

impl Environment {
    /// The deployment, not yet made.
    pub(super) fn config(&self) -> Config {
        let config = match self.topology {
            Topology::Single => Deployment::standalone(),
            Topology::ReplicaSet => Deployment::replica_set(3),
            // Fail points are set at one mongos, so that a client of one is enough but for a few cases.
            Topology::Sharded => Deployment::sharded(2, 2),
            Topology::LoadBalanced => Deployment::sharded(2, 1).load_balanced(),
        };
        let config = config.server_version(self.version).accept_api_version_2();
        match self.users {
            Users::Nobody => config,
            Users::Password => config.user(USER, PASSWORD),
            Users::Token => config.user(USER, PASSWORD).oidc_token(TOKEN, USER),
        }
    }

    /// What a person calls it.
    pub(super) fn name(&self) -> String {
        let auth = match self.users {
            Users::Nobody => "",
            Users::Password => " with users",
            Users::Token => " with tokens",
        };
        format!("{} {}{auth}", self.topology.name(), self.version)
    }

    /// Whether servers of that version are found in such a deployment: behind load balancers since 5.0.
    fn exists(&self) -> bool {
        self.topology != Topology::LoadBalanced || numbers(self.version) >= vec![5, 0, 0]
    }

    /// The first thing that it lacks of what a requirement asks for.
    fn lacks(&self, requirement: &Requirement) -> Option<Lack> {
        let version = numbers(self.version);
        let at_least = |bound: &String| version >= numbers(bound);
        let at_most = |bound: &String| version <= numbers(bound);
        let is_one = |names: &Vec<String>| names.iter().any(|name| self.topology.is(name));
        let is_set = |(name, value): (&String, &serde_json::Value)| {
            PARAMETERS.iter().any(|(known, is)| name == known && value == *is)
        };
        let mechanism = requirement.auth_mechanism.as_ref();
        let parameters = requirement.server_parameters.as_ref();
        let holds = [
            (
                Lack::Encryption,
                requirement.csfle.as_ref().is_none_or(|csfle| csfle == false),
            ),
            (
                Lack::Serverless,
                requirement.serverless.as_deref() != Some("require"),
            ),
            (Lack::Topology, requirement.topologies.as_ref().is_none_or(is_one)),
            (
                Lack::Parameters,
                parameters.is_none_or(|parameters| parameters.iter().all(is_set)),
            ),
            (
                Lack::Users,
                requirement.auth.is_none_or(|auth| auth == self.users.are_there())
                    && mechanism.is_none_or(|mechanism| self.users.have(mechanism)),
            ),
            (
                Lack::Version,
                requirement.min_server_version.as_ref().is_none_or(at_least)
                    && requirement.max_server_version.as_ref().is_none_or(at_most),
            ),
        ];
        holds.into_iter().find(|(_, holds)| !holds).map(|(lack, _)| lack)
    }

    /// What it lacks of the best of several alternatives; nothing if it is one of them, or if there are none.
    fn lacks_of(&self, alternatives: &[Requirement]) -> Option<Lack> {
        // Nothing is less than anything.
        alternatives.iter().map(|one| self.lacks(one)).min().flatten()
    }
}

/// What a deployment lacks that a test requires, the nearest first: what comes later is looked at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lack {
    Version,
    Users,
    Parameters,
    Topology,
    Serverless,
    Encryption,
}

impl Lack {
    fn reason(self) -> &'static str {
        match self {
            Self::Version => "no server of a version that it requires is simulated",
            Self::Users => "no simulated deployment has the users that it requires",
            Self::Parameters => "no simulated server has the parameters that it requires",
            Self::Topology => "no simulated deployment is of a topology that it requires",
            Self::Serverless => "no serverless deployment is simulated",
            Self::Encryption => "client-side encryption is not built",
        }
    }
}

/// The deployments that a test of a file admits: of each topology every server version, with users only where they are
/// asked for.
pub(super) fn admitted(file: &[Requirement], test: &[Requirement]) -> Result<Vec<Environment>, Fault> {
    let mut environments = Vec::new();
    let mut nearest = None;
    for topology in Topology::ALL {
        for version in VERSIONS {
            for users in Users::ALL {
                let environment = Environment {
                    topology,
                    version,
                    users,
                };
                if !environment.exists() {
                    continue;
                }
                // Both lists count: what the worse one lacks.
                match environment.lacks_of(file).max(environment.lacks_of(test)) {
                    None => {
                        environments.push(environment);
                        break;
                    }
                    Some(lack) => nearest = Some(nearest.map_or(lack, |known: Lack| known.min(lack))),
                }
            }
        }
    }
    if environments.is_empty() {
        return Err(unsupported(nearest.map_or("nothing is simulated", Lack::reason)));
    }
    Ok(environments)
}

/// The numbers of a version, for comparison.
fn numbers(version: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> = version
        .split('.')
        .map(|number| number.parse().unwrap_or(0))
        .collect();
    numbers.resize(3, 0);
    numbers
}

/// The newest patch release of each version that is simulated.
const VERSIONS: [&str; 7] = [
    "4.2.24", "4.4.29", "5.0.31", "6.0.27", "7.0.28", "8.0.15", "8.2.3",
];

pub(super) const USER: &str = "tester";
pub(super) const PASSWORD: &str = "secret";
pub(super) const TOKEN: &str = "token-of-the-tester";

/// The server parameters that tests ask for, as the simulated servers have them.
const PARAMETERS: [(&str, bool); 3] = [
    ("acceptApiVersion2", true),
    ("enableTestCommands", true),
    ("requireApiVersion", false),
];
