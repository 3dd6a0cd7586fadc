//! What the audit keeps of a command line, without the secrets in it.
//!
//! Programs take secrets in many forms and say nowhere which. What looks like one by its name is masked, rather once too
//! often; one without such a name is not recognised, which is why whole command lines are written down only when asked for.

use std::borrow::Cow;

use super::shell::word;

/// What the audit keeps of a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audit {
    /// The program and, of docker, the subcommand and how many arguments followed.
    Names,
    /// All of it, what looks like a secret masked.
    Argv,
}

/// Stands for a secret.
const MASK: &str = "***";
/// Parts of names that mean a secret, in lower case and without separators.
const SECRET: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "credential",
    "authorization",
    "cookie",
    "bearer",
];
/// Whole names that do.
const SECRET_NAMES: [&str; 5] = ["pass", "pwd", "auth", "key", "pw"];
/// Ends of names whose value says where the secret is.
const ELSEWHERE: [&str; 4] = ["stdin", "file", "path", "dir"];
/// Short options that take a password in common programs (`docker login`, `mysql`, `sshpass`).
const SHORT: &str = "-p";
/// Options that take `user:password`.
const USERS: [&str; 3] = ["-u", "--user", "--proxy-user"];

impl Audit {
    /// What is kept of a command line that `names` tells of without its arguments.
    pub fn kept<'a>(self, names: String, argv: impl IntoIterator<Item = &'a str>) -> String {
        match self {
            Audit::Names => names,
            Audit::Argv => masked(argv),
        }
    }
}

/// A command line as one text: its arguments quoted as a shell would need it, secrets masked.
fn masked<'a>(argv: impl IntoIterator<Item = &'a str>) -> String {
    let mut shown = Vec::new();
    let mut before = "";
    for arg in argv {
        shown.push(quoted(&mask(before, arg)));
        before = arg;
    }
    shown.join(" ")
}

/// One argument, behind another.
fn mask(before: &str, arg: &str) -> String {
    let takes_secret = before.starts_with('-') && !before.contains('=') && is_secret(before.trim_start_matches('-'));
    let is_port = |text: &str| text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains(char::is_alphabetic);
    if (takes_secret && !arg.starts_with("--")) || (before == SHORT && !is_port(arg)) {
        return MASK.to_owned();
    }
    if USERS.contains(&before)
        && let Some((user, password)) = arg.split_once(':')
        && !is_port(password)
    {
        return format!("{user}:{MASK}");
    }
    if let Some(joined) = arg.strip_prefix(SHORT)
        && !arg.starts_with("--")
        && !joined.is_empty()
        && !is_port(joined)
    {
        return format!("{SHORT}{MASK}");
    }
    // `--name=value`, `NAME=value`, `--env=NAME=value` and `Name: value`, whichever has a telling name.
    for (at, separator) in arg.match_indices(['=', ':']) {
        let name = arg[..at].rsplit(['=', ',', '?', '&', ' ']).next().unwrap_or_default();
        let is_url = arg[at..].starts_with("://");
        if !is_url && is_secret(name.trim_start_matches('-')) {
            return format!("{}{separator}{MASK}", &arg[..at]);
        }
    }
    in_url(arg)
}

/// Masks the password of a URL.
fn in_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rsplit_once('@').and_then(|(user, _)| user.split_once(':')) {
        Some((user, password)) => {
            let after = &rest[user.len() + 1 + password.len()..];
            format!("{scheme}://{user}:{MASK}{after}")
        }
        None => text.to_owned(),
    }
}

/// Whether a name means a secret.
fn is_secret(name: &str) -> bool {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    !ELSEWHERE.iter().any(|end| name.ends_with(end))
        && (SECRET_NAMES.contains(&name.as_str()) || SECRET.iter().any(|part| name.contains(part)))
}

/// As a shell would need it.
fn quoted(arg: &str) -> String {
    // The mask is no pattern of a shell's.
    match word(&arg.replace(MASK, "x")) {
        Cow::Borrowed(_) => arg.to_owned(),
        Cow::Owned(_) => word(arg).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(line: &str) -> String {
        masked(line.split('|'))
    }

    #[test]
    fn secrets_are_masked_and_the_rest_is_not() {
        for (line, expected) in [
            ("login|-u|me|-p|hunter2|registry.test", "login -u me -p *** registry.test"),
            ("login|--password=hunter2", "login --password=***"),
            ("login|--password-stdin|registry.test", "login --password-stdin registry.test"),
            ("run|-p|8080:80|-p|127.0.0.1:53:53/udp", "run -p 8080:80 -p ***"),
            ("run|-e|DB_PASSWORD=hunter2|-e|A=b", "run -e DB_PASSWORD=*** -e A=b"),
            ("run|--env=API_TOKEN=hunter2|x", "run --env=API_TOKEN=*** x"),
            ("build|--build-arg|npm_token=x|.", "build --build-arg npm_token=*** ."),
            ("exec|-u|1000:1000|c|id", "exec -u 1000:1000 c id"),
            ("curl|-u|me:hunter2|https://a.test/x", "curl -u me:*** https://a.test/x"),
            ("git|clone|https://me:hunter2@a.test/r.git", "git clone https://me:***@a.test/r.git"),
            ("curl|-H|Authorization: Bearer hunter2", "curl -H Authorization:***"),
            ("mysql|-phunter2|--secret-file|/run/x", "mysql -p*** --secret-file /run/x"),
            ("echo|it's|", r"echo 'it'\''s' ''"),
        ] {
            assert_eq!(shown(line), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_form_of_option_shows_its_secret(
            name in "[a-z]{0,6}[-_]?(password|secret|token|api-key|ACCESS_KEY)[-_]?[a-z]{0,3}",
            secret in "[a-zA-Z0-9+@:]{6,20}",
        ) {
            prop_assume!(is_secret(&name));
            for argv in [
                vec!["x".to_owned(), format!("--{name}={secret}")],
                vec!["x".into(), format!("--{name}"), secret.clone()],
                vec!["x".into(), "-e".into(), format!("{name}={secret}")],
                vec!["x".into(), format!("https://{name}:{secret}@host/")],
            ] {
                let shown = masked(argv.iter().map(String::as_str));
                prop_assert!(!shown.contains(&secret), "{shown}");
            }
        }
    }
}
