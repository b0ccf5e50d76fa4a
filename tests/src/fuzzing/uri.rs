//! Connection strings.

use changestream_core::ConnectionString;

use super::Choices;

/// What is accepted is valid and can be shown and read again; and whatever stands around a password, it is shown
/// nowhere.
///
/// # Panics
/// It does not hold.
pub fn uri(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(parsed) = text.parse::<ConnectionString>() {
        check(&parsed);
    }
    with_password(&mut Choices::new(data));
}

fn check(parsed: &ConnectionString) {
    parsed.options.validate().expect("what is parsed is valid");
    let shown = parsed.to_string();
    if shown.contains("***") {
        return;
    }
    let again: ConnectionString = shown
        .parse()
        .expect("without a secret, what is shown is the whole");
    assert_eq!(again.options, parsed.options);
}

/// A string that someone made of a user name, a password in which nothing is escaped, and the rest.
fn with_password(choices: &mut Choices<'_>) {
    const PASSWORD: &str = "hunter2";
    let before = String::from_utf8_lossy(choices.slice()).into_owned();
    let after = String::from_utf8_lossy(choices.slice()).into_owned();
    let rest = String::from_utf8_lossy(choices.rest());
    // A host is shown in small letters.
    if rest.to_lowercase().contains(PASSWORD)
        || before.contains(PASSWORD)
        || reads_otherwise(&format!("{before}{after}"))
    {
        return;
    }
    let text = format!("mongodb://alice:{before}{PASSWORD}{after}@{rest}");
    let shown = match text.parse::<ConnectionString>() {
        Ok(parsed) => {
            check(&parsed);
            let options = format!("{:?}", parsed.options);
            format!("{parsed} {parsed:?} {options} {:?}", parsed.warnings)
        }
        Err(error) => format!("{error} {error:?}"),
    };
    assert!(!shown.contains(PASSWORD), "{text:?} is shown as {shown}");
}

/// What looks like options behind a host is options to every reader, even if someone meant it as a password.
fn reads_otherwise(password: &str) -> bool {
    password.contains('?') && password.contains('=')
}
