//! The environment that a program on the host begins with.

use crate::model::platform::DEFAULT_PATH;

/// What programs get of the broker's environment; everything else may be a secret of the user's.
const PASSED: [&str; 11] = [
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "SSH_AUTH_SOCK",
];

/// The base for programs on the host, as `ExecStart.env` documents it: the PATH with the extension's own programs
/// first, some variables of the broker, and the extension's id. `var` reads the broker's environment.
pub fn host_base(var: &impl Fn(&str) -> Option<String>, bin_dir: &str, extension: &str) -> Vec<(String, String)> {
    let path = var("PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| DEFAULT_PATH.to_owned());
    let own = [("PATH", format!("{bin_dir}:{path}")), ("LONGSHORE_EXTENSION", extension.to_owned())];
    let passed = PASSED.iter().filter_map(|name| Some((*name, var(name)?)));
    own.into_iter().chain(passed).map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_documented_is_passed() {
        let var = |name: &str| match name {
            "PATH" => Some("/usr/bin".to_owned()),
            "HOME" => Some("/home/u".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("no".to_owned()),
            _ => None,
        };
        let base = host_base(&var, "/data/bin", "o/e");
        let expected = [("PATH", "/data/bin:/usr/bin"), ("LONGSHORE_EXTENSION", "o/e"), ("HOME", "/home/u")];
        assert_eq!(base, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn without_a_path_there_is_one() {
        let base = host_base(&|_| None, "/b", "o/e");
        assert_eq!(base[0].1, format!("/b:{DEFAULT_PATH}"));
    }
}
