//! The official driver for Python authenticates at the simulated server too: what our client and it agree upon is not a
//! mistake that both of our sides make.
//!
//! `CHANGESTREAM_PYTHON` names a Python that has PyMongo; without it the test says so and passes.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use changestream_sim::{Deployment, RunningDeployment};
use rcgen::DnType;

use crate::certificates::Authority;
use crate::tls_proxy::TlsServer;

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test must never be silent")]
fn an_official_driver_authenticates_by_each_mechanism() {
    let Some(python) = std::env::var_os("CHANGESTREAM_PYTHON") else {
        eprintln!("skipped: CHANGESTREAM_PYTHON names no Python with PyMongo; .ci/run installs one");
        return;
    };
    let deployment = Deployment::replica_set(1)
        .plain_user("ada", "hunter2")
        .x509_user("CN=ada,O=Example")
        .aws_user("arn:aws:iam::1:user/ada", "AKID", "secret", None)
        .aws_user(
            "arn:aws:sts::1:assumed-role/ben",
            "ASIA",
            "secret",
            Some("session//token=="),
        )
        .oidc_provider("https://issuer", "changestream", "")
        .oidc_token("token", "ada")
        .start()
        .unwrap();
    let deployment = Arc::new(deployment);
    let uri = |userinfo: &str, more: &str| {
        let uri = deployment.uri();
        uri.replace("mongodb://", &format!("mongodb://{userinfo}")) + more
    };
    let (tls, _files) = x509(&deployment);
    let cases = [
        ("plain", uri("ada:hunter2@", "&authMechanism=PLAIN"), "ada"),
        ("x509", tls, "CN=ada,O=Example"),
        (
            "aws",
            uri("AKID:secret@", "&authMechanism=MONGODB-AWS"),
            "arn:aws:iam::1:user/ada",
        ),
        (
            "aws",
            uri(
                "ASIA:secret@",
                "&authMechanism=MONGODB-AWS&authMechanismProperties=AWS_SESSION_TOKEN:session%2F%2Ftoken%3D%3D",
            ),
            "arn:aws:sts::1:assumed-role/ben",
        ),
        ("oidc", uri("", "&authMechanism=MONGODB-OIDC"), "ada"),
        ("oidc-human", uri("", "&authMechanism=MONGODB-OIDC"), "ada"),
    ];
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("drivers/pymongo/authenticate.py");
    for (number, (case, uri, user)) in cases.into_iter().enumerate() {
        let output = Command::new(&python)
            .arg("-B")
            .arg(&script)
            .args([case, &uri, &number.to_string()])
            .env("TOKEN", "token")
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(LACKS) {
            eprintln!("skipped: {case}: {errors}");
            continue;
        }
        assert!(output.status.success(), "{case}: {errors}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.trim(), format!("$external {user}"), "{case}");
    }
}

/// A connection string through TLS, with a client certificate; and the files that it names.
fn x509(deployment: &Arc<RunningDeployment>) -> (String, [crate::certificates::File; 2]) {
    let authority = Authority::new();
    let certificate = authority.issue(&["127.0.0.1"]);
    let ada = authority.issue_to(&[(DnType::OrganizationName, "Example"), (DnType::CommonName, "ada")]);
    let told = Arc::clone(deployment);
    let mut server = TlsServer::new(&certificate);
    server.clients_of = Some(&authority);
    server.identify = Some(Arc::new(move |from, _| {
        told.show_certificate(from, "CN=ada,O=Example")
    }));
    let server = server.start(deployment.address(0).unwrap());
    let files = [authority.file(), ada.file()];
    let uri = format!(
        "mongodb://{}/?directConnection=true&authMechanism=MONGODB-X509&tls=true&tlsCAFile={}&tlsCertificateKeyFile={}",
        server.address,
        files[0].path(),
        files[1].path()
    );
    (uri, files)
}

/// How the script says that this PyMongo lacks something.
const LACKS: i32 = 77;
