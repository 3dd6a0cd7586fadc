//! The command line of `docker`, as far as it must be understood: which engine, context or configuration it is told to
//! use comes before the subcommand, and an extension has no say in that.

use super::error::{Error, Reason, Result};

/// Options before the subcommand that lead to another engine or configuration. So does everything that begins with
/// `--tls`.
const REFUSED: [&str; 3] = ["host", "context", "config"];
/// The others that take no value.
const SWITCHES: [&str; 3] = ["debug", "version", "help"];
/// The other one that takes a value.
const LOG_LEVEL: &str = "log-level";
/// Variables of docker's that an extension may set. Others lead to another engine or configuration.
const VARIABLES: [&str; 6] = [
    "DOCKER_API_VERSION",
    "DOCKER_BUILDKIT",
    "DOCKER_CONTENT_TRUST",
    "DOCKER_DEFAULT_PLATFORM",
    "DOCKER_HIDE_LEGACY_COMMANDS",
    "DOCKER_SCAN_SUGGEST",
];

/// What `arguments`, those behind the word `docker`, begin with: the subcommand, empty where there is none.
///
/// # Errors
///
/// `ARGV_INVALID` for an option before it that leads elsewhere, or is not known: the message names it.
pub fn subcommand(arguments: &[String]) -> Result<(&str, &[String])> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            return Ok((rest.next().map_or("", String::as_str), rest.as_slice()));
        }
        let takes_next = match argument.strip_prefix("--") {
            Some(long) => check_long(long)?,
            None if argument.len() > 1 && argument.starts_with('-') => check_short(argument)?,
            None => return Ok((argument, rest.as_slice())),
        };
        if takes_next {
            rest.next();
        }
    }
    Ok(("", &[]))
}

/// Refuses variables that lead docker to another engine or configuration.
///
/// # Errors
///
/// `REQUEST_INVALID`, naming the variable.
pub fn check_variables<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<()> {
    match names.find(|name| name.starts_with("DOCKER_") && !VARIABLES.contains(name)) {
        None => Ok(()),
        Some(name) => {
            let message =
                format!("the variable {name} is not for an extension to set: its docker uses its own engine gateway");
            Err(Error::new(Reason::RequestInvalid, "env", message))
        }
    }
}

/// Checks `name` or `name=value`; whether the next argument is its value.
fn check_long(option: &str) -> Result<bool> {
    let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
    if REFUSED.contains(&name) || name.starts_with("tls") {
        return Err(refused(&format!("--{name}")));
    }
    match name {
        LOG_LEVEL => Ok(value.is_none()),
        name if SWITCHES.contains(&name) => Ok(false),
        name => Err(unknown(&format!("--{name}"))),
    }
}

/// Checks letters that stand together; whether the next argument is the value of the last.
fn check_short(argument: &str) -> Result<bool> {
    for (at, letter) in argument.char_indices().skip(1) {
        match letter {
            'H' | 'c' => return Err(refused(&format!("-{letter}"))),
            // What stands behind it is its value.
            'l' => return Ok(at + 1 == argument.len()),
            'D' | 'v' | 'h' => {}
            // The value of a switch.
            '=' if at > 1 => return Ok(false),
            letter => return Err(unknown(&format!("-{letter}"))),
        }
    }
    Ok(false)
}

fn refused(option: &str) -> Error {
    let message =
        format!("the option {option} of docker is refused: an extension's docker uses its own engine gateway");
    Error::new(Reason::ArgvInvalid, "argv", message)
}

fn unknown(option: &str) -> Error {
    let message = format!("the option {option} before docker's subcommand is not known; put it behind that");
    Error::new(Reason::ArgvInvalid, "argv", message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(line: &str) -> std::result::Result<String, String> {
        let arguments: Vec<String> = line.split_whitespace().map(ToOwned::to_owned).collect();
        subcommand(&arguments).map(|(found, _)| found.to_owned()).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn the_subcommand_is_found_behind_harmless_options() {
        for (line, found) in [
            ("ps -a", "ps"),
            ("", ""),
            ("--debug run -c 5 x", "run"),
            ("-D -l debug ps", "ps"),
            ("-Dl debug ps", "ps"),
            ("-Dldebug ps", "ps"),
            ("-l=debug ps", "ps"),
            ("--log-level debug ps", "ps"),
            ("--log-level=debug ps", "ps"),
            ("--debug=false ps", "ps"),
            ("-D=false ps", "ps"),
            ("--version", ""),
            ("-- ps", "ps"),
            ("- x", "-"),
            // Behind the subcommand these are its own.
            ("run -H tcp://x", "run"),
            ("exec --context y", "exec"),
        ] {
            assert_eq!(read(line), Ok(found.to_owned()), "{line}");
        }
    }

    #[test]
    fn whatever_leads_elsewhere_is_refused_by_name() {
        for (line, option) in [
            ("-H tcp://x ps", "-H"),
            ("-Htcp://x ps", "-H"),
            ("-H=tcp://x ps", "-H"),
            ("-DH tcp://x ps", "-H"),
            ("-vDHtcp://x ps", "-H"),
            ("--host tcp://x ps", "--host"),
            ("--host=tcp://x ps", "--host"),
            ("-c other ps", "-c"),
            ("-Dcother ps", "-c"),
            ("--context=other ps", "--context"),
            ("--config /x ps", "--config"),
            ("--tls ps", "--tls"),
            ("--tlsverify=false ps", "--tlsverify"),
            ("--tlscacert /x ps", "--tlscacert"),
            // The value of an option is not its subcommand.
            ("-l debug -H tcp://x ps", "-H"),
            ("--log-level ps --host x", "--host"),
            ("--hos x ps", "--hos"),
            ("-x ps", "-x"),
        ] {
            assert!(read(line).unwrap_err().contains(&format!("option {option} ")), "{line}: {:?}", read(line));
        }
    }

    #[test]
    fn variables_that_lead_elsewhere_are_refused() {
        assert!(check_variables(["DOCKER_BUILDKIT", "COMPOSE_FILE", "A"].into_iter()).is_ok());
        for name in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"] {
            assert!(check_variables(["A", name].into_iter()).unwrap_err().message().contains(name));
        }
    }

    proptest! {
        #[test]
        fn no_host_gets_through_before_a_subcommand(
            before in prop::collection::vec("-D|--debug|-Dv|--log-level=x", 0..4),
            option in "-[Dvh]{0,3}H(=?x)?|--host(=x)?|-[Dvh]{0,3}c|--tls[a-z]{0,6}",
        ) {
            let line = [before.join(" "), option, "x ps".to_owned()].join(" ");
            prop_assert!(read(&line).is_err(), "{}", line);
        }
    }
}
