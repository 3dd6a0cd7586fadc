//! The environment that a program on the host begins with.

/// What programs get of the broker's environment; everything else may be a secret of the user's. Without the first two
/// few programs start.
const PASSED: [&str; 22] = [
    "SystemRoot",
    "SystemDrive",
    "windir",
    "ComSpec",
    "PATHEXT",
    "TEMP",
    "TMP",
    "USERNAME",
    "USERDOMAIN",
    "USERPROFILE",
    "HOMEDRIVE",
    "HOMEPATH",
    "APPDATA",
    "LOCALAPPDATA",
    "ProgramData",
    "ProgramFiles",
    "ProgramFiles(x86)",
    "CommonProgramFiles",
    "COMPUTERNAME",
    "NUMBER_OF_PROCESSORS",
    "PROCESSOR_ARCHITECTURE",
    "OS",
];

/// Where programs are found when the broker itself was given no PATH.
const DEFAULT_PATH: &str = r"C:\Windows\System32;C:\Windows";

/// The base for programs on the host, as `ExecStart.env` documents it: the PATH with the extension's own programs
/// first, some variables of the broker, and the extension's id. `var` reads the broker's environment.
pub fn host_base(var: &impl Fn(&str) -> Option<String>, bin_dir: &str, extension: &str) -> Vec<(String, String)> {
    let path = var("PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| DEFAULT_PATH.to_owned());
    let own = [("PATH", format!("{bin_dir};{path}")), ("LONGSHORE_EXTENSION", extension.to_owned())];
    let passed = PASSED.iter().filter_map(|name| Some((*name, var(name)?)));
    own.into_iter().chain(passed).map(|(name, value)| (name.to_owned(), value)).collect()
}
