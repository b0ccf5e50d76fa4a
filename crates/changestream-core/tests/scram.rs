//! SCRAM, the client's side: the RFCs' vectors, MongoDB's passwords, and servers that cheat.
#![allow(clippy::unwrap_used, reason = "tests")]

use bson::{RawDocumentBuf, rawdoc};
use changestream_core::auth::scram::{self, Hash, MAX_ITERATIONS, MIN_ITERATIONS, Scram, ScramKeys};
use changestream_core::auth::{Credential, Mechanism};
use changestream_core::random::Random;
use changestream_core::{Error, ErrorKind};

const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";

#[test]
fn the_example_of_rfc_5802() {
    let scram = Scram::new(Hash::Sha1, "user", "fyko+d2lbbFgONRv9qkxdawL");
    assert_eq!(scram.client_first(), "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL");
    let server_first = "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096";
    let (client_final, proof) = scram
        .answer(server_first.as_bytes(), |hash, salt, iterations| {
            Ok(ScramKeys::derive(hash, b"pencil", salt, iterations))
        })
        .unwrap();
    assert_eq!(
        client_final,
        "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="
    );
    proof.verify(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=").unwrap();
}

#[test]
fn the_example_of_rfc_7677() {
    let scram = Scram::new(Hash::Sha256, "user", NONCE);
    assert_eq!(scram.client_first(), format!("n,,n=user,r={NONCE}"));
    let credential = Credential::new("user", "pencil", "admin", None);
    let (client_final, proof) = answer(&scram, &credential, &server_first("4096")).unwrap();
    assert_eq!(
        client_final,
        format!("c=biws,r={SERVER_NONCE},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    );
    proof
        .verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
        .unwrap();
}

#[test]
fn scram_sha_1_digests_user_and_password_as_mongodb_does() {
    // The example of the Authentication specification.
    let scram = Scram::new(Hash::Sha1, "user", "fyko+d2lbbFgONRv9qkxdawL");
    let credential = Credential::new("user", "pencil", "admin", Some(Mechanism::ScramSha1));
    let server_first =
        "r=fyko+d2lbbFgONRv9qkxdawLHo+Vgk7qvUOKUwuWLIWg4l/9SraGMHEE,s=rQ9ZY3MntBeuP3E1TDVC4w==,i=10000";
    let (client_final, proof) = answer(&scram, &credential, server_first).unwrap();
    assert_eq!(
        client_final,
        "c=biws,r=fyko+d2lbbFgONRv9qkxdawLHo+Vgk7qvUOKUwuWLIWg4l/9SraGMHEE,p=MC2T8BvbmWRckDw8oWl5IVghwCY="
    );
    proof.verify(b"v=UMWeI25JD1yNYZRMpZ4VHvhZ9e0=").unwrap();
}

#[test]
fn user_names_are_escaped_and_never_prepared() {
    for (name, escaped) in [
        ("a=b,c", "a=3Db=2Cc"),
        ("=2C", "=3D2C"),
        ("\u{2168}", "\u{2168}"),
        ("I\u{ad}X", "I\u{ad}X"),
    ] {
        assert_eq!(
            Scram::new(Hash::Sha256, name, "n").client_first(),
            format!("n,,n={escaped},r=n")
        );
    }
}

#[test]
fn scram_sha_256_prepares_the_password() {
    // RFC 4013, section 3, and the users of the Authentication specification's tests.
    for (password, prepared) in [
        ("I\u{ad}X", "IX"),
        ("\u{2168}", "IX"),
        ("\u{2163}", "IV"),
        ("\u{aa}", "a"),
        ("a\u{a0}b", "a b"),
        ("USER", "USER"),
    ] {
        assert_eq!(
            proof_of(password, Hash::Sha256),
            proof_of(prepared, Hash::Sha256),
            "{password:?}"
        );
    }
    assert_ne!(proof_of("user", Hash::Sha256), proof_of("USER", Hash::Sha256));
}

#[test]
fn scram_sha_1_takes_the_password_as_it_is() {
    assert_ne!(proof_of("I\u{ad}X", Hash::Sha1), proof_of("IX", Hash::Sha1));
    assert_ne!(proof_of("\u{2168}", Hash::Sha1), proof_of("IX", Hash::Sha1));
    assert!(try_proof_of("bell\u{7}", Hash::Sha1).is_ok());
}

#[test]
fn a_password_that_saslprep_prohibits_is_an_error_that_does_not_repeat_it() {
    for password in ["bell\u{7}", "\u{627}1", "secret\u{e000}"] {
        let error = try_proof_of(password, Hash::Sha256).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Authentication { .. }));
        let text = format!("{error} {error:?}");
        assert!(text.contains("SASLprep") && !text.contains(password), "{text}");
    }
}

#[test]
fn a_server_that_asks_for_too_few_or_too_many_iterations_is_refused() {
    let derived_with = |count: &str| {
        let mut got = None;
        let scram = Scram::new(Hash::Sha256, "user", NONCE);
        let result = scram.answer(server_first(count).as_bytes(), |hash, salt, iterations| {
            got = Some(iterations);
            Ok(ScramKeys::derive(hash, b"pencil", salt, 1))
        });
        (result.map(|_| ()).map_err(|e| e.to_string()), got)
    };
    for count in [MIN_ITERATIONS, 15_000, MAX_ITERATIONS] {
        assert_eq!(derived_with(&count.to_string()), (Ok(()), Some(count)));
    }
    let too_many = (MAX_ITERATIONS + 1).to_string();
    for count in [
        "0",
        "1",
        "4095",
        &too_many,
        "4294967295",
        "4294967296",
        "99999999999999999999",
        "",
        "-4096",
        "+4096",
        "4096.0",
        "0x1000",
        "many",
        " 4096",
    ] {
        let (result, keys) = derived_with(count);
        let error = result.unwrap_err();
        assert!(error.contains("iteration"), "{count}: {error}");
        assert_eq!(keys, None, "{count}: nothing may be derived");
    }
}

#[test]
fn a_server_nonce_must_extend_the_clients() {
    for nonce in [
        NONCE,
        "",
        "rOprNGfwEbeRWgbNEkq",
        "xOprNGfwEbeRWgbNEkqO123",
        "ROPRNGFWEBERWGBNEKQO123",
    ] {
        let message = format!("r={nonce},s={SALT},i=4096");
        let error = refused(&message);
        assert!(error.contains("nonce"), "{nonce}: {error}");
    }
}

#[test]
fn malformed_first_messages_of_a_server_are_refused() {
    for message in [
        String::new(),
        ",,,".to_owned(),
        format!("r={SERVER_NONCE}"),
        format!("r={SERVER_NONCE},s={SALT}"),
        format!("s={SALT},r={SERVER_NONCE},i=4096"),
        format!("r={SERVER_NONCE},i=4096,s={SALT}"),
        format!("r={SERVER_NONCE},s=,i=4096"),
        format!("r={SERVER_NONCE},s=*,i=4096"),
        format!("m=future,r={SERVER_NONCE},s={SALT},i=4096"),
        format!("r{SERVER_NONCE},s={SALT},i=4096"),
    ] {
        refused(&message);
    }
    let scram = Scram::new(Hash::Sha256, "user", NONCE);
    let credential = Credential::new("user", "pencil", "admin", None);
    assert!(
        scram
            .answer(b"r=\xff", |h, s, i| credential.scram_keys(h, s, i))
            .is_err()
    );
    let extended = format!("{},x=an extension", server_first("4096"));
    assert!(
        answer(&scram, &credential, &extended).is_ok(),
        "optional extensions are allowed"
    );
}

#[test]
fn a_server_that_says_an_error_is_quoted_but_not_at_length() {
    assert!(refused("e=unknown-user").contains("unknown-user"));
    assert!(refused(&format!("e={}", "x".repeat(100_000))).len() < 400);
    let error = proof().verify(b"e=invalid-proof").unwrap_err().to_string();
    assert!(error.contains("invalid-proof"), "{error}");
}

#[test]
fn a_wrong_signature_is_refused() {
    assert!(
        proof()
            .verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
            .is_ok()
    );
    assert!(
        proof()
            .verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=,x=more")
            .is_ok()
    );
    for message in [
        &b""[..],
        b"v=",
        b"v=*",
        b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95A==",
        b"V=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        b"x=1,v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        b"v=\xff",
    ] {
        let error = proof().verify(message).unwrap_err();
        assert!(matches!(
            error.kind(),
            ErrorKind::Authentication {
                server_error: None,
                ..
            }
        ));
    }
}

#[test]
fn the_mechanism_is_the_one_asked_for_or_the_best_the_server_lists() {
    let unnamed = Credential::new("user", "pencil", "admin", None);
    for (reply, expected) in [
        (rawdoc! {}, Mechanism::ScramSha1),
        (rawdoc! { "saslSupportedMechs": [] }, Mechanism::ScramSha1),
        (
            rawdoc! { "saslSupportedMechs": ["SCRAM-SHA-1"] },
            Mechanism::ScramSha1,
        ),
        (
            rawdoc! { "saslSupportedMechs": ["SCRAM-SHA-1", "SCRAM-SHA-256"] },
            Mechanism::ScramSha256,
        ),
        (
            rawdoc! { "saslSupportedMechs": ["SCRAM-SHA-256"] },
            Mechanism::ScramSha256,
        ),
        (
            rawdoc! { "saslSupportedMechs": ["FUTURE", 7, "SCRAM-SHA-256"] },
            Mechanism::ScramSha256,
        ),
        (
            rawdoc! { "saslSupportedMechs": ["PLAIN", "GSSAPI"] },
            Mechanism::ScramSha1,
        ),
        (
            rawdoc! { "saslSupportedMechs": ["scram-sha-256"] },
            Mechanism::ScramSha1,
        ),
        (
            rawdoc! { "saslSupportedMechs": "SCRAM-SHA-256" },
            Mechanism::ScramSha1,
        ),
    ] {
        assert_eq!(unnamed.negotiate(&reply), expected, "{reply:?}");
    }
    for asked in [Mechanism::ScramSha1, Mechanism::ScramSha256, Mechanism::Plain] {
        let named = Credential::new("user", "pencil", "admin", Some(asked));
        let reply: RawDocumentBuf = rawdoc! { "saslSupportedMechs": ["SCRAM-SHA-1", "SCRAM-SHA-256"] };
        assert_eq!(named.negotiate(&reply), asked);
    }
}

#[test]
fn mechanisms_parse_by_their_names_and_some_are_no_scram() {
    for name in [
        "SCRAM-SHA-1",
        "SCRAM-SHA-256",
        "MONGODB-X509",
        "PLAIN",
        "MONGODB-AWS",
        "MONGODB-OIDC",
        "GSSAPI",
    ] {
        let mechanism: Mechanism = name.parse().unwrap();
        assert_eq!(mechanism.to_string(), name);
        match mechanism.scram_hash() {
            Ok(hash) => assert_eq!(hash == Hash::Sha1, name == "SCRAM-SHA-1"),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(name) && text.contains("is no SCRAM"), "{text}");
            }
        }
    }
    assert!("MONGODB-CR".parse::<Mechanism>().is_err());
    assert!("scram-sha-1".parse::<Mechanism>().is_err());
}

#[test]
fn secrets_are_never_printed() {
    let credential = Credential::new("user", "pencil", "admin", None);
    let keys = credential.scram_keys(Hash::Sha256, b"salt", 4096).unwrap();
    let text = format!("{credential:?} {:?} {keys:?} {:?}", credential.clone(), proof());
    assert!(!text.contains("pencil") && text.contains("user"), "{text}");
    assert!(!text.contains('['), "no key bytes: {text}");
}

#[test]
fn keys_are_derived_once_for_all_clones_of_a_credential() {
    let credential = Credential::new("user", "pencil", "admin", None);
    let keys = |credential: &Credential, hash, salt: &[u8], iterations| {
        credential.scram_keys(hash, salt, iterations).unwrap()
    };
    let first = keys(&credential, Hash::Sha256, b"salt", 4096);
    for (hash, salt, iterations, same) in [
        (Hash::Sha256, &b"salt"[..], 4096, true),
        (Hash::Sha256, b"pepper", 4096, false),
        (Hash::Sha256, b"salt", 4097, false),
        (Hash::Sha1, b"salt", 4096, false),
        (Hash::Sha256, b"salt", 4096, true),
    ] {
        let other = keys(&credential.clone(), hash, salt, iterations);
        assert_eq!(first.ptr_eq(&other), same, "{hash:?} {salt:?} {iterations}");
    }
    let namesake = Credential::new("user", "pencil", "admin", None);
    assert!(!first.ptr_eq(&keys(&namesake, Hash::Sha256, b"salt", 4096)));
}

#[test]
fn a_server_that_changes_its_salt_for_ever_does_not_fill_the_memory() {
    let credential = Credential::new("user", "pencil", "admin", None);
    let first = credential.scram_keys(Hash::Sha1, b"0", 4096).unwrap();
    for salt in 1..10u8 {
        credential.scram_keys(Hash::Sha1, &[salt], 4096).unwrap();
    }
    let again = credential.scram_keys(Hash::Sha1, b"0", 4096).unwrap();
    assert!(!first.ptr_eq(&again), "old keys are dropped");
}

#[test]
fn nonces_are_long_printable_and_determined_by_the_seed() {
    let nonce = |seed| scram::nonce(&mut Random::new([seed; 32]));
    assert_eq!(nonce(1), nonce(1));
    assert_ne!(nonce(1), nonce(2));
    assert_eq!(nonce(1).len(), 32);
    assert!(nonce(1).bytes().all(|b| b.is_ascii_graphic() && b != b','));
}

#[test]
fn hostile_messages_never_panic() {
    let mut random = Random::new([9; 32]);
    let good = server_first("4096");
    let scram = Scram::new(Hash::Sha1, "user", NONCE);
    for _ in 0..20_000 {
        let mut bytes = good.clone().into_bytes();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] = random.next_u64() as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, b",=r0"[random.below(4)]),
            }
        }
        let _ = scram.answer(&bytes, |hash, salt, _| Ok(ScramKeys::derive(hash, b"", salt, 1)));
        bytes.insert(0, b'v');
        let _ = proof_with_one_iteration(&scram).verify(&bytes);
    }
}

fn answer(
    scram: &Scram,
    credential: &Credential,
    message: &str,
) -> Result<(String, scram::ServerProof), Error> {
    scram.answer(message.as_bytes(), |hash, salt, iterations| {
        credential.scram_keys(hash, salt, iterations)
    })
}

fn refused(server_first: &str) -> String {
    let scram = Scram::new(Hash::Sha256, "user", NONCE);
    let error = scram
        .answer(server_first.as_bytes(), |_, _, _| {
            panic!("nothing may be derived")
        })
        .unwrap_err();
    assert!(matches!(
        error.kind(),
        ErrorKind::Authentication {
            server_error: None,
            ..
        }
    ));
    error.to_string()
}

fn proof() -> scram::ServerProof {
    let credential = Credential::new("user", "pencil", "admin", None);
    answer(
        &Scram::new(Hash::Sha256, "user", NONCE),
        &credential,
        &server_first("4096"),
    )
    .unwrap()
    .1
}

fn proof_with_one_iteration(scram: &Scram) -> scram::ServerProof {
    let message = server_first("4096");
    scram
        .answer(message.as_bytes(), |hash, salt, _| {
            Ok(ScramKeys::derive(hash, b"", salt, 1))
        })
        .unwrap()
        .1
}

fn proof_of(password: &str, hash: Hash) -> String {
    try_proof_of(password, hash).unwrap()
}

fn try_proof_of(password: &str, hash: Hash) -> Result<String, Error> {
    let credential = Credential::new("user", password, "admin", None);
    let scram = Scram::new(hash, "user", NONCE);
    Ok(answer(&scram, &credential, &server_first("4096"))?.0)
}

fn server_first(iterations: &str) -> String {
    format!("r={SERVER_NONCE},s={SALT},i={iterations}")
}
